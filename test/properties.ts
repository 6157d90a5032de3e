/**
 * fast-check with one seed for the whole run: the same properties are tried on every machine, so that what lands does not depend on
 * luck. POSTCARD_SEED=N plays another one, POSTCARD_SEED=random looks for what nobody has seen yet; a failure prints its seed.
 */
import fc from 'fast-check';

const SEED = 20_260_101;
const wanted = process.env.POSTCARD_SEED ?? SEED;
const seed = wanted === 'random' ? Date.now() % 2 ** 31 : Number(wanted);
if (!Number.isSafeInteger(seed)) throw new Error(`POSTCARD_SEED is a whole number or "random", not ${wanted}`);
fc.configureGlobal({ ...fc.readConfigureGlobal(), seed });

export default fc;
