// oidc-provider on loopback, as its documentation sets it up for development: its own pages to sign in and to consent,
// everything in memory. The settings come as JSON on the standard input; the first line on the standard output is the
// issuer. It ends when its standard input does.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import Provider, { errors } from 'oidc-provider';

const lines = createInterface({ input: process.stdin });
lines.once('line', async (line) => {
  const settings = JSON.parse(line);
  const server = createServer();
  await new Promise((resolve) => server.listen(settings.port ?? 0, '127.0.0.1', resolve));
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: settings.clients,
    scopes: ['openid', 'offline_access', 'read', 'write'],
    cookies: { keys: ['for the tests'] },
    pkce: { required: () => true },
    enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'ES256', 'EdDSA'] },
    ttl: {
      AccessToken: (_ctx, token) => token.resourceServer?.accessTokenTTL ?? 3600,
      ClientCredentials: (_ctx, token) => token.resourceServer?.accessTokenTTL ?? 600,
      DeviceCode: settings.deviceCodeLifetime ?? 600,
    },
    features: {
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      clientCredentials: { enabled: true },
      revocation: { enabled: true },
      introspection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        useGrantedResource: () => true,
        getResourceServerInfo: (_ctx, resource) => {
          if (!resource.startsWith('https://api.example.com')) throw new errors.InvalidTarget();
          return { scope: 'read write', audience: resource, accessTokenFormat: 'opaque', accessTokenTTL: 900 };
        },
      },
    },
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  });
  // It has no token exchange itself (RFC 8693), but reads the request and authenticates the client for one.
  const type = 'urn:ietf:params:oauth:token-type:access_token';
  const names = ['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'requested_token_type'];
  provider.registerGrantType(
    'urn:ietf:params:oauth:grant-type:token-exchange',
    async (ctx) => {
      const { subject_token: shown, subject_token_type: kind, audience, scope } = ctx.oidc.params;
      const subject = kind === type ? await provider.AccessToken.find(shown) : undefined;
      if (!subject?.isValid) throw new errors.InvalidRequest('subject_token is not valid');
      if ([audience].flat().includes('unknown')) throw new errors.InvalidTarget('no such audience');
      const { accountId } = subject;
      const token = new provider.AccessToken({ accountId, client: ctx.oidc.client, scope: scope ?? subject.scope });
      ctx.oidc.entity('AccessToken', token);
      ctx.body = {
        access_token: await token.save(),
        issued_token_type: type,
        token_type: 'Bearer',
        expires_in: token.expiration,
        scope: token.scope,
      };
    },
    [...names, 'audience', 'resource', 'scope'],
    ['audience', 'resource'],
  );
  const seen = [];
  provider.use(async (ctx, next) => {
    await next();
    seen.push([ctx.method, ctx.path, ctx.status]);
  });
  const handle = provider.callback();
  server.on('request', (request, response) => {
    if (request.url === '/the-tests/seen') {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify(seen));
    } else {
      handle(request, response);
    }
  });
  console.log(issuer);
});
lines.on('close', () => process.exit(0));
