/**
 * The OpenAPI document of the routes as they are. What makes it is a good part of the door's code, and most servers are never
 * asked: it is loaded, and the document made, at the first question; then the text is kept.
 *
 * Promises: routes are noted while they are made, and relieved of their schemas, which serve this document only. Fails: making it
 * rejects where a schema has no form in JSON Schema, which is a bug that the tests of the document would find.
 */
import Fastify, { type FastifyInstance, type FastifyServerOptions, type RouteOptions } from 'fastify';
import type { Clock } from '../env.ts';
import { tidy } from './openapi.ts';
import { SECURITY_SCHEMES } from './openapi-admin.ts';

/** Fastify's option for routes whose schemas describe them and no more. (Its types know its own compilers only.) */
export const NO_SCHEMAS: NonNullable<FastifyServerOptions['schemaController']> = {
  compilersFactory: {
    buildValidator: () => (() => () => true) as never,
    buildSerializer: () => () => JSON.stringify,
  },
};

type Described = Pick<RouteOptions, 'method' | 'url' | 'schema'>;

/** Notes the routes that `app` is given from now on; the answer tells their document, as JSON. */
export function describeRoutes(app: FastifyInstance, publicUrl: string, clock: Clock): () => Promise<string> {
  const routes: Described[] = [];
  app.addHook('onRoute', (route) => {
    const { method, url, schema } = route;
    if (schema !== undefined && method !== 'HEAD') routes.push({ method, url, schema });
    delete route.schema;
  });
  let text: Promise<string> | null = null;
  return () => {
    // What could not be made (no file could be opened for its code, say) is made at the next question.
    text ??= documentOf(routes, publicUrl, clock).catch((error: unknown) => {
      text = null;
      throw error;
    });
    return text;
  };
}

async function documentOf(routes: readonly Described[], publicUrl: string, clock: Clock): Promise<string> {
  const { default: swagger } = await import('@fastify/swagger');
  const { createJsonSchemaTransform, createJsonSchemaTransformObject } = await import('fastify-type-provider-zod');
  const openapi = {
    openapi: '3.1.0',
    info: {
      title: 'Postcard',
      version: '2',
      description: "Send MMS and follow what becomes of them. Field by field Infobip's MMS API v2.",
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: publicUrl === '' ? '/' : publicUrl }],
    components: { securitySchemes: SECURITY_SCHEMES },
  };
  // In pieces, with others' requests between them: all together are 0.2 s of work.
  const toJson = createJsonSchemaTransform({});
  const schemas = new Map<unknown, ReturnType<typeof toJson>>();
  for (const route of routes) {
    schemas.set(route.schema, toJson({ ...route, route, openapiObject: openapi } as never));
    await clock.sleep(0);
  }
  const app = Fastify({
    logger: false,
    exposeHeadRoutes: false,
    schemaController: NO_SCHEMAS,
    routerOptions: { maxParamLength: 4096 },
  });
  await app.register(swagger, {
    openapi,
    transform: ({ schema, url }) => schemas.get(schema) ?? { schema, url },
  });
  for (const route of routes) app.route({ ...route, handler: () => null });
  await app.ready();
  await clock.sleep(0);
  const paths = app.swagger();
  await app.close();
  await clock.sleep(0);
  const whole = createJsonSchemaTransformObject({})({ openapiObject: paths } as never);
  await clock.sleep(0);
  return JSON.stringify(tidy(whole as unknown as Record<string, unknown>));
}
