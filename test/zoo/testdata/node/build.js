// What dockerode's users build with: buildImage of files, of a stream, with options; followProgress; errors.
const Docker = require('dockerode');
const assert = require('assert');
const fs = require('fs');
const os = require('os');
const path = require('path');

const docker = new Docker({ socketPath: process.env.DOCKER_SOCKET });

const follow = (stream) => new Promise((resolve, reject) => {
  docker.modem.followProgress(stream, (err, out) => (err ? reject(err) : resolve(out)));
});

const output = async (image, cmd) => {
  const c = await docker.createContainer({ Image: image, Cmd: cmd });
  await c.start();
  await c.wait();
  const log = await c.logs({ stdout: true });
  await c.remove();
  let text = '';
  for (let at = 0; at < log.length; at += 8 + log.readUInt32BE(at + 4)) { // a header before each piece
    text += log.subarray(at + 8, at + 8 + log.readUInt32BE(at + 4)).toString();
  }
  return text;
};

(async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'berth-zoo-'));
  try {
    fs.writeFileSync(path.join(dir, 'Dockerfile'), 'FROM box\nARG WHO\nCOPY file.txt /file.txt\nRUN echo $WHO >> /file.txt\n');
    fs.writeFileSync(path.join(dir, 'file.txt'), 'hello\n');
    const src = ['Dockerfile', 'file.txt'];

    let out = await follow(await docker.buildImage({ context: dir, src }, { t: 'node:1', buildargs: { WHO: 'world' }, labels: { a: 'b' } }));
    assert(out.some((m) => /Successfully tagged node:1/.test(m.stream || '')), JSON.stringify(out));
    assert.strictEqual(await output('node:1', ['cat', '/file.txt']), 'hello\nworld\n');

    // version=2 is BuildKit by the same request: what it says comes as traces beside the image's id.
    out = await follow(await docker.buildImage({ context: dir, src }, { t: 'node:2', version: '2', buildargs: { WHO: 'two' } }));
    assert(!out.some((m) => m.error), JSON.stringify(out));
    assert.strictEqual(await output('node:2', ['cat', '/file.txt']), 'hello\ntwo\n');

    fs.writeFileSync(path.join(dir, 'Dockerfile'), 'FROM box\nRUN echo last words; exit 5\n');
    const failed = await follow(await docker.buildImage({ context: dir, src }, { t: 'node:3' })).catch((e) => [{ error: String(e) }]);
    const text = JSON.stringify(failed);
    assert(/non-zero code: 5/.test(text), text);

    const usage = await docker.df();
    const records = usage.BuildCache ? usage.BuildCache.length : usage.BuildCacheUsage.TotalCount; // before API 1.52, and since
    assert(records > 0, JSON.stringify(usage));
    await docker.pruneBuilder();
    console.log('dockerode builds');
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
})().catch((err) => {
  console.error(err);
  process.exit(1);
});
