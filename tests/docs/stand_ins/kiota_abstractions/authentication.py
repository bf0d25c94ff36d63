class AnonymousAuthenticationProvider:
    pass
