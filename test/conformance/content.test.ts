/**
 * Fitted content on both engines with a clock of the test's own: kept, found again, and gone when nobody needs it. PostgreSQL
 * needs POSTCARD_TEST_POSTGRES (see postgres.test.ts) and is left out without it.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { openContent } from '../../src/store/sqlite/content.ts';
import { createContentReads } from '../../src/store/sqlite/media.ts';
import { ownDatabase, SERVER } from '../postgres.ts';
import { accepted, DAY, type Desk, type Harness, HOUR, openDesk } from './desk.ts';
import { openEngineStore } from './engine-store.ts';
import { openMoving } from './postgres.harness.ts';
import { openSynchronous } from './sqlite.harness.ts';

const START = Date.UTC(2026, 10, 24, 12);
const RETENTION = 7 * DAY;
const KEPT = { now: START, retentionMs: RETENTION };
const database = ownDatabase('content');

const engines = [
  { name: 'SQLite', leftOut: false, open: () => openSynchronous(KEPT) },
  { name: 'PostgreSQL', leftOut: !SERVER, open: () => openMoving(database, KEPT) },
];
beforeAll(async () => {
  if (SERVER) await database.make();
});
afterAll(async () => {
  if (SERVER) await database.drop();
});

const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const PHOTO = Buffer.from('a large picture');
const SMALL = Buffer.from('a small one');
const variant = { hash: hashOf(SMALL), contentType: 'image/jpeg' };

for (const engine of engines) {
  describe.skipIf(engine.leftOut)(`fitted content on ${engine.name}`, () => {
    let h: Harness;
    let desk: Desk;
    beforeEach(async () => {
      h = await engine.open();
      desk = await openDesk(h);
      await h.store.putContent(hashOf(PHOTO), PHOTO);
      await h.store.putContent(hashOf(SMALL), SMALL);
    });
    afterEach(() => h.close());

    const known = (profile = '300k') => h.store.variant(hashOf(PHOTO), profile);

    it('is found by its content and its profile, the newest of each', async () => {
      expect(await known()).toBeNull();
      await h.store.putVariant(hashOf(PHOTO), '300k', variant);
      await h.store.putVariant(hashOf(PHOTO), '600k', { hash: hashOf(PHOTO), contentType: 'image/png' });
      expect(await known()).toEqual(variant);
      expect(await known('600k')).toEqual({ hash: hashOf(PHOTO), contentType: 'image/png' });
      expect(await h.store.variant(hashOf(SMALL), '300k')).toBeNull();
      await h.store.putVariant(hashOf(PHOTO), '300k', { ...variant, contentType: 'image/gif' });
      expect(await known()).toEqual({ ...variant, contentType: 'image/gif' });
    });

    it('goes a day after it was made where nobody refers to its content', async () => {
      await h.store.putVariant(hashOf(PHOTO), '300k', variant);
      h.advance(DAY - HOUR);
      await desk.sweep();
      expect(await known()).not.toBeNull();
      h.advance(2 * HOUR);
      await desk.sweep();
      expect(await known()).toBeNull();
    });

    it('stays as long as an upload or a message refers to its content', async () => {
      const upload = { account: 1, id: 'pic', name: 'p.jpg', hash: hashOf(PHOTO), contentType: 'image/jpeg', size: 9 };
      await h.store.putUpload({ ...upload, validityMs: 2 * DAY });
      await h.store.putVariant(hashOf(PHOTO), '300k', variant);
      await desk.accept({ uploads: ['pic'] });
      await desk.settleAll((claim) => accepted(`m${claim.leader}`));
      // The upload ends on the second day, the message leaves a week after its end.
      for (let day = 1; day <= 8; day++) {
        h.advance(DAY);
        await desk.sweep();
        expect(await known(), `day ${day}`).toEqual(variant);
      }
      for (let day = 9; day <= 14; day++) {
        h.advance(DAY + HOUR);
        await desk.sweep();
      }
      expect(await known()).toBeNull();
    });
  });
}

describe('bytes that were damaged in the content file', () => {
  it('are not given out, and are whole again when somebody gives them again', () => {
    const dir = mkdtempSync(join(tmpdir(), 'postcard-content-'));
    const path = join(dir, 'content.db');
    const file = openContent(path);
    try {
      file.put([{ hash: hashOf(SMALL), bytes: SMALL }], START);
      const db = new DatabaseSync(path);
      db.prepare('UPDATE content SET bytes = ?').run(Buffer.from('a smaII one'));
      db.close();
      expect(file.get(hashOf(SMALL))).toBeNull();
      file.put([{ hash: hashOf(SMALL), bytes: SMALL }], START);
      expect(file.get(hashOf(SMALL))).toEqual(Uint8Array.from(SMALL));
    } finally {
      file.close();
      rmSync(dir, { recursive: true });
    }
  });
});

describe('the bytes of fitted content', () => {
  it('stay in the content file while their variant does', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'postcard-content-'));
    const file = openContent(join(dir, 'content.db'));
    const store = openEngineStore(join(dir, 'postcard.db'), { now: START, retentionMs: RETENTION });
    const db = new DatabaseSync(join(dir, 'postcard.db'), { readOnly: true });
    try {
      const { isReferred } = createContentReads(db);
      file.put([{ hash: variant.hash, bytes: SMALL }], START);
      await store.putVariant(hashOf(PHOTO), '300k', variant);
      file.collect(START + 2 * DAY, '', isReferred);
      expect(file.get(variant.hash)).not.toBeNull();
      store.advance(2 * DAY);
      while (await store.sweep());
      file.collect(START + 2 * DAY, '', isReferred);
      expect(file.get(variant.hash)).toBeNull();
    } finally {
      db.close();
      await store.close();
      file.close();
      rmSync(dir, { recursive: true });
    }
  });
});

describe.skipIf(!SERVER)('content on PostgreSQL', () => {
  it('is not given out when its bytes are damaged, and stays while a variant is made of it', async () => {
    const { store, schema, advance, close } = await openMoving(database, KEPT);
    try {
      await store.putContent(hashOf(PHOTO), PHOTO);
      await store.putContent(hashOf(SMALL), SMALL);
      await store.putVariant(hashOf(PHOTO), '300k', variant);
      advance(DAY - HOUR);
      await store.putVariant(hashOf(PHOTO), '300k', variant);
      advance(2 * HOUR);
      while (await store.sweep());
      expect(await store.content(hashOf(SMALL))).not.toBeNull();
      expect(await store.content(hashOf(PHOTO))).toBeNull();
      await database.query(`UPDATE ${schema}.content SET bytes = $1`, [Buffer.from('a smaII one')]);
      expect(await store.content(hashOf(SMALL))).toBeNull();
      // Who gives it again has it.
      await store.putContent(hashOf(SMALL), SMALL);
      expect(Buffer.from((await store.content(hashOf(SMALL))) ?? []).toString()).toBe('a small one');
    } finally {
      await close();
    }
  });
});
