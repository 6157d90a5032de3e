/**
 * The disk's limit for group commit: 64 closed-loop writers of 1 KB over one append-only file; what arrives during a sync is the
 * next sync. node bench/append.ts <file> <ms>; prints records a second.
 */
import { fdatasync, openSync, writeSync } from 'node:fs';

const fd = openSync(process.argv[2] as string, 'a');
const end = performance.now() + Number(process.argv[3]);
const record = Buffer.alloc(1024, 0x61);
let done = 0;

function group(waiting: number): void {
  writeSync(fd, Buffer.concat(Array.from({ length: waiting }, () => record)));
  fdatasync(fd, () => {
    done += waiting;
    if (performance.now() < end) group(waiting);
    else console.log(done / (Number(process.argv[3]) / 1000));
  });
}
group(64);
