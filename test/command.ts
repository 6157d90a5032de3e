/** What a runner of the tests was started with: its options, or words on what is wrong with them and how it is used. */
import { type ParseArgsOptionsConfig, parseArgs } from 'node:util';

/** Says what is wrong and how it is used, and ends with code 2. */
export function refuse(words: string, usage: string): never {
  console.error(`${words}\n${usage}`);
  process.exit(2);
}

/** The options of this process; `--help` prints `usage` and ends with code 0, what it does not know as `refuse` does. */
export function asked<Options extends ParseArgsOptionsConfig>(usage: string, options: Options) {
  try {
    if (parseArgs({ options: { help: { type: 'boolean', short: 'h' } }, strict: false }).values.help === true) {
      console.log(usage);
      process.exit(0);
    }
    return parseArgs({ options }).values;
  } catch (error) {
    return refuse((error as Error).message, usage);
  }
}
