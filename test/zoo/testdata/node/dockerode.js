// What people do with dockerode, on the engine at DOCKER_SOCKET. A rejection or a failed assertion ends it.
'use strict';
const assert = require('node:assert/strict');
const { PassThrough, Writable } = require('node:stream');
const { pipeline } = require('node:stream/promises');
const Docker = require('dockerode');

const docker = new Docker({ socketPath: process.env.DOCKER_SOCKET });

const text = async (stream) => {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts).toString();
};

// collected gives two sinks and what they have got.
const collected = () => {
  const out = [], err = [];
  const sink = (into) => new Writable({ write(data, _, done) { into.push(data); done(); } });
  return { stdout: sink(out), stderr: sink(err), out: () => Buffer.concat(out).toString(), err: () => Buffer.concat(err).toString() };
};

const refused = async (promise, status, words) => {
  await assert.rejects(promise, (e) => {
    assert.equal(e.statusCode, status, e.message);
    assert.match(e.message, words);
    return true;
  });
};

const parts = {
  async engine() {
    assert.equal((await docker.ping()).toString(), 'OK');
    assert.equal((await docker.version()).Os, 'linux');
    assert.equal((await docker.info()).Containers, 0);
    await docker.df();
  },

  async run() {
    const c = collected();
    const [result, container] = await docker.run('box', ['sh', '-c', 'echo out; echo err >&2; exit 3'], [c.stdout, c.stderr], { Tty: false });
    assert.deepEqual([result.StatusCode, c.out(), c.err()], [3, 'out\n', 'err\n']);
    await container.remove();
    await refused(docker.createContainer({ Image: 'no-such-image' }), 404, /No such image/);
    await refused(docker.getContainer('nobody').inspect(), 404, /No such container: nobody/);
  },

  async hijacked() {
    const container = await docker.createContainer({ Image: 'box', Cmd: ['sh', '-c', 'read a; echo got $a; read b; echo and $b'], OpenStdin: true, StdinOnce: true });
    const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
    const c = collected();
    docker.modem.demuxStream(stream, c.stdout, c.stderr);
    const ended = new Promise((resolve) => stream.on('end', resolve).on('close', resolve));
    await container.start();
    stream.write('one\n');
    stream.end('two\n');
    assert.equal((await container.wait()).StatusCode, 0);
    await ended;
    assert.equal(c.out(), 'got one\nand two\n');
    await container.remove();
  },

  async execs() {
    const container = await docker.createContainer({ Image: 'box', Cmd: ['sleep', '1000'], name: 'node-execs' });
    await container.start();
    const exec = await container.exec({ Cmd: ['sh', '-c', 'cat; echo done >&2; exit 5'], AttachStdin: true, AttachStdout: true, AttachStderr: true });
    const stream = await exec.start({ hijack: true, stdin: true });
    const c = collected();
    docker.modem.demuxStream(stream, c.stdout, c.stderr);
    const closed = new Promise((resolve) => stream.on('end', resolve).on('close', resolve));
    stream.end('through the pipe\n');
    await closed;
    assert.deepEqual([c.out(), c.err(), (await exec.inspect()).ExitCode], ['through the pipe\n', 'done\n', 5]);

    const tty = await container.exec({ Cmd: ['sh', '-c', 'until stty size | grep -q "33 77"; do sleep 0.05; done; stty size'], AttachStdout: true, Tty: true });
    const screen = await tty.start({ hijack: true, Tty: true });
    await tty.resize({ h: 33, w: 77 });
    assert.match(await text(screen), /33 77/);

    const stats = await container.stats({ stream: false });
    assert.ok(stats.cpu_stats.online_cpus > 0 && stats.memory_stats.usage > 0, JSON.stringify(stats));
    assert.ok((await container.top()).Processes.length > 0);
    await refused(docker.createContainer({ Image: 'box', name: 'node-execs' }), 409, /already in use/);
    await refused(container.remove(), 409, /container is running/);
    await container.pause();
    assert.equal((await container.inspect()).State.Status, 'paused');
    await container.unpause();
    await container.update({ Memory: 64 << 20, MemorySwap: 64 << 20 });
    await container.rename({ name: 'node-renamed' });
    await container.stop({ t: 0 });
    await refused(container.stop(), 304, /.*/);
    await container.remove();
  },

  async files() {
    const tar = require('tar-fs'); // of dockerode itself
    const container = await docker.createContainer({ Image: 'box', Cmd: ['cat', '/tmp/a/package.json'] });
    await container.putArchive(tar.pack(__dirname + '/node_modules/dockerode', { entries: ['package.json'], map: (h) => ({ ...h, name: 'a/' + h.name }) }), { path: '/tmp' });
    const info = await container.infoArchive({ path: '/tmp/a' });
    assert.ok(info);
    const log = collected();
    const stream = await container.attach({ stream: true, stdout: true });
    docker.modem.demuxStream(stream, log.stdout, log.stderr);
    const read = new Promise((resolve) => stream.on('end', resolve).on('close', resolve));
    await container.start();
    await read;
    await container.wait();
    assert.match(log.out(), /"name": "dockerode"/);
    assert.ok((await container.changes()).some((c) => c.Path === '/tmp/a/package.json' && c.Kind === 1));
    const archive = await text(await container.getArchive({ path: '/tmp/a/package.json' }));
    assert.match(archive, /"name": "dockerode"/);
    const made = await container.commit({ repo: 'node-made', tag: 'one' });
    assert.ok(made.Id);
    const image = docker.getImage('node-made:one');
    const saved = new PassThrough();
    const loading = docker.loadImage(saved);
    await Promise.all([pipeline(await image.get(), saved), loading.then(text)]);
    await image.tag({ repo: 'node-made', tag: 'two' });
    assert.equal((await docker.listImages({ filters: { reference: ['node-made'] } }))[0].RepoTags.length, 2);
    await docker.getImage('node-made:two').remove();
    await image.remove({ force: true });
    await container.remove();
  },

  async following() {
    const container = await docker.createContainer({ Image: 'box', Cmd: ['sh', '-c', 'for i in 1 2 3; do echo line $i; sleep 0.2; done'] });
    const events = await docker.getEvents({ filters: { container: [container.id] } });
    const seen = [];
    events.on('data', (data) => data.toString().split('\n').filter(Boolean).forEach((l) => seen.push(JSON.parse(l).Action)));
    await container.start();
    const c = collected();
    const logs = await container.logs({ follow: true, stdout: true, stderr: true });
    docker.modem.demuxStream(logs, c.stdout, c.stderr);
    await new Promise((resolve) => logs.on('end', resolve));
    assert.equal(c.out(), 'line 1\nline 2\nline 3\n');
    await container.wait();
    await container.remove();
    for (let i = 0; i < 1200 && !seen.includes('destroy'); i++) await new Promise((r) => setTimeout(r, 50));
    events.destroy();
    assert.deepEqual(seen.filter((a) => a !== 'attach'), ['start', 'die', 'destroy']);
  },

  async rooms() {
    const network = await docker.createNetwork({ Name: 'node-net', CheckDuplicate: true, Labels: { zoo: 'node' } });
    const volume = await docker.createVolume({ Name: 'node-volume' });
    const container = await docker.createContainer({
      Image: 'box', Cmd: ['sleep', '1000'], ExposedPorts: { '80/tcp': {} },
      HostConfig: { NetworkMode: 'node-net', PortBindings: { '80/tcp': [{ HostPort: '' }] }, Mounts: [{ Type: 'volume', Source: 'node-volume', Target: '/data' }] },
    });
    await container.start();
    const info = await container.inspect();
    assert.ok(info.NetworkSettings.Ports['80/tcp'][0].HostPort > 0);
    assert.equal(Object.keys((await network.inspect()).Containers).length, 1);
    await refused(volume.remove(), 409, /volume is in use/);
    await container.remove({ force: true });
    await volume.remove();
    await network.remove();
    await docker.pruneContainers();
    await docker.pruneNetworks();
    await docker.pruneVolumes();
    await docker.pruneImages();
  },
};

(async () => {
  for (const [name, part] of Object.entries(parts)) {
    await part();
    console.log(name, 'ok');
  }
  process.exit(0);
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
