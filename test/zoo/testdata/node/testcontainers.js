// What people do with testcontainers. With the argument "and-die" it is killed with everything still there.
'use strict';
const assert = require('node:assert/strict');
const net = require('node:net');
const { GenericContainer, Network, Wait } = require('testcontainers');

const ask = (port, host) => new Promise((resolve, reject) => {
  const socket = net.connect(port, host);
  const parts = [];
  socket.on('data', (d) => parts.push(d)).on('end', () => resolve(Buffer.concat(parts).toString())).on('error', reject);
});

(async () => {
  const network = await new Network().start();
  const server = await new GenericContainer('box:latest')
    .withCommand(['sh', '-c', 'while true; do echo served | nc -l -p 8000; done'])
    .withExposedPorts(8000)
    .withNetwork(network)
    .withNetworkAliases('server')
    .withLabels({ zoo: 'testcontainers' })
    .withCopyContentToContainer([{ content: 'copied before the start\n', target: '/etc/note' }])
    .withWaitStrategy(Wait.forListeningPorts())
    .withStartupTimeout(120000)
    .start();
  let answer = '';
  for (let i = 0; i < 600 && answer !== 'served\n'; i++) { // between two clients nobody listens
    if (i > 0) await new Promise((resolve) => setTimeout(resolve, 100));
    answer = await ask(server.getMappedPort(8000), server.getHost()).catch(() => '');
  }
  assert.equal(answer, 'served\n');
  const note = await server.exec(['cat', '/etc/note']);
  assert.deepEqual([note.exitCode, note.output], [0, 'copied before the start\n']);

  const talker = await new GenericContainer('box:latest')
    .withCommand(['sh', '-c', 'for i in $(seq 300); do nc -w 20 server 8000 </dev/null && break; sleep 0.2; done; echo ready; sleep 1000'])
    .withNetworkMode(network.getName())
    .withEnvironment({ A: 'b' })
    .withTmpFs({ '/scratch': 'rw' })
    .withWaitStrategy(Wait.forLogMessage('ready'))
    .start();
  const logs = [];
  for await (const line of (await talker.logs()).on('data', () => {})) {
    logs.push(line.toString());
    if (logs.join('').includes('ready')) break;
  }
  assert.match(logs.join(''), /served/);

  const healthy = await new GenericContainer('box:latest')
    .withCommand(['sh', '-c', 'sleep 0.5; touch /ok; sleep 1000'])
    .withHealthCheck({ test: ['CMD-SHELL', 'test -e /ok'], interval: 250, retries: 100 })
    .withWaitStrategy(Wait.forHealthCheck())
    .start();
  const failing = new GenericContainer('box:latest').withCommand(['false']).withWaitStrategy(Wait.forOneShotStartup()).withStartupTimeout(60000);
  await assert.rejects(failing.start());

  if (process.argv[2] === 'and-die') {
    console.log('left behind');
    process.kill(process.pid, 'SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 60000)); // it does not come to that
  }
  await server.restart();
  const committed = await server.commit({ repo: 'tc-made', tag: 'one', deleteOnExit: true });
  assert.ok(committed);
  await healthy.stop();
  await talker.stop();
  await server.stop();
  await network.stop();
  console.log('testcontainers ok');
  process.exit(0);
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
