"use strict";

const GREYS = Uint32Array.from({ length: 256 }, (_, grey) => (0xff000000 | (grey * 0x010101)) >>> 0);
const token = new URLSearchParams(location.search).get("token") ?? "";
const byId = (id) => document.getElementById(id);
const panes = { raw: byId("raw"), denoised: byId("denoised") };
let socket = null;
let waiting = null; // the newest picture that is not painted yet
let retryMs = 500;

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/stream?token=${encodeURIComponent(token)}`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { retryMs = 500; sendSide(); };
  socket.onmessage = ({ data }) => (typeof data === "string" ? showState(JSON.parse(data)) : receive(data));
  socket.onclose = () => {
    showBanner("No connection to rtdenoise web: is it still running?", "#ff5d5d");
    notice("raw", "DISCONNECTED");
    notice("denoised", "DISCONNECTED");
    setTimeout(connect, retryMs);
    retryMs = Math.min(2 * retryMs, 5000);
  };
}

function say(words) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(words));
}

function sendSide() {
  const boxes = Object.values(panes).map((pane) => pane.querySelector(".pane").getBoundingClientRect());
  const side = Math.max(...boxes.map((box) => Math.max(box.width, box.height))) * (window.devicePixelRatio || 1);
  if (side > 0) say({ side: Math.min(4096, Math.ceil(side)) });
}

function receive(buffer) {
  const first = waiting === null;
  waiting = buffer;
  if (first) requestAnimationFrame(paint);
}

function paint() {
  const buffer = waiting;
  waiting = null;
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let offset = 4 + length;
  for (const name of ["raw", "denoised"]) {
    if (header[name] === null) continue;
    const [rows, columns] = header[name];
    draw(panes[name].querySelector("canvas"), new Uint8Array(buffer, offset, rows * columns), rows, columns);
    offset += rows * columns;
  }
  showLevels(header.levels, header.step);
  document.body.dataset.painted = header.n;
  say({ painted: header.n });
}

function draw(canvas, greys, rows, columns) {
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
    canvas.picture = null;
  }
  const context = canvas.getContext("2d");
  canvas.picture ??= context.createImageData(columns, rows);
  const pixels = new Uint32Array(canvas.picture.data.buffer);
  for (let i = 0; i < greys.length; i++) pixels[i] = GREYS[greys[i]];
  context.putImageData(canvas.picture, 0, 0);
}

function showState(told) {
  showBanner(told.state, told.colour);
  for (const name of ["raw", "denoised"]) {
    panes[name].querySelector(".caption").textContent = told[name].caption;
    notice(name, told[name].notice);
  }
  byId("model").textContent = told.model;
  for (const [name, [value, details, colour]] of Object.entries(told.cells)) {
    const cell = document.getElementById(`cell ${name}`) ?? addCell(name);
    cell.children[1].textContent = value;
    cell.children[1].style.color = colour;
    cell.children[2].textContent = cell.children[2].title = details;
  }
}

function addCell(name) {
  const cell = document.createElement("div");
  cell.id = `cell ${name}`;
  cell.append(document.createElement("dt"), document.createElement("dd"), document.createElement("dd"));
  cell.children[0].textContent = name;
  byId("cells").append(cell);
  return cell;
}

function showBanner(text, colour) {
  byId("state").textContent = text;
  byId("state").style.background = colour;
}

function notice(name, text) {
  const line = panes[name].querySelector(".notice");
  line.textContent = text;
  line.hidden = !text;
}

function showLevels([black, white], step) {
  for (const [id, count] of [["black", black], ["white", white]]) {
    if (document.activeElement !== byId(id)) byId(id).value = Number(count.toPrecision(5));
  }
  byId("step").textContent = step > 1 ? `every ${step}${step === 2 ? "nd" : step === 3 ? "rd" : "th"} pixel shown` : "";
}

function fixLevels() {
  const [black, white] = [byId("black").valueAsNumber, byId("white").valueAsNumber];
  if (black < white) say({ levels: [black, white] });
}

function show(what) {
  document.body.dataset.show = what;
  byId("compare").textContent = what === "both" ? "One pane" : "Side by side";
}

byId("auto").onclick = () => say({ levels: null });
byId("black").onchange = byId("white").onchange = fixLevels;
byId("tools").onsubmit = (event) => { event.preventDefault(); fixLevels(); };
byId("compare").onclick = () => { show(document.body.dataset.show === "both" ? "denoised" : "both"); sendSide(); };
document.querySelector("main").onpointerdown = () => document.body.dataset.show === "denoised" && show("raw");
window.onpointerup = window.onpointercancel = () => document.body.dataset.show === "raw" && show("denoised");
window.onresize = sendSide;
connect();
