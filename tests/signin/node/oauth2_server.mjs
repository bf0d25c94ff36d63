// node-oauth/oauth2-server on loopback: it does not form-decode the id and the secret of Basic (RFC 6749 section 2.3.1
// wants that). The settings come as JSON on the standard input; the first line on the standard output is the URL. It
// ends when its standard input does.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import OAuth2Server from '@node-oauth/oauth2-server';

const lines = createInterface({ input: process.stdin });
lines.once('line', async (line) => {
  const { clients } = JSON.parse(line);
  const tokens = [];
  const oauth = new OAuth2Server({
    model: {
      getClient: (id, secret) => {
        const found = clients.find((one) => one.id === id && (secret === null || one.secret === secret));
        return found && { id, grants: ['client_credentials', 'refresh_token'] };
      },
      getUserFromClient: (client) => ({ id: client.id }),
      generateAccessToken: () => randomUUID(),
      generateRefreshToken: () => randomUUID(),
      saveToken: (token, client, user) => {
        tokens.push({ ...token, client, user });
        return tokens.at(-1);
      },
      getAccessToken: (accessToken) => tokens.find((one) => one.accessToken === accessToken),
      getRefreshToken: (refreshToken) => tokens.find((one) => one.refreshToken === refreshToken),
      revokeToken: (token) => tokens.splice(0, tokens.length, ...tokens.filter((one) => one !== token)).length > 0,
      validateScope: (_user, _client, scope) => scope ?? ['all'],
      verifyScope: () => true,
    },
  });
  let requests = 0;
  const server = createServer(async (message, answer) => {
    let body = '';
    for await (const chunk of message) body += chunk;
    const request = new OAuth2Server.Request({
      headers: message.headers,
      method: message.method,
      query: {},
      body: Object.fromEntries(new URLSearchParams(body)),
    });
    const response = new OAuth2Server.Response();
    const send = (status, document) => {
      answer.writeHead(status, { ...response.headers, 'content-type': 'application/json' });
      answer.end(JSON.stringify(document));
    };
    if (message.url === '/the-tests/requests') return send(200, requests);
    try {
      if (message.url === '/token') {
        requests += 1;
        await oauth.token(request, response);
        return send(response.status, response.body);
      }
      const token = await oauth.authenticate(request, response);
      return send(200, { client: token.client.id });
    } catch (error) {
      return send(error.code ?? 500, { error: error.name, error_description: error.message });
    }
  });
  server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
});
lines.on('close', () => process.exit(0));
