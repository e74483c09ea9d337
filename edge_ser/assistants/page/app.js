// The page: a button, a microphone, a conversation with the server, and what is shown of it.

import { Microphone, Problem } from "./capture.js";
import { Ribbon } from "./ribbon.js";
import { BAD_TOKEN, Conversation } from "./socket.js";
import { View } from "./view.js";
import * as words from "./words.js";

const GONE = "The microphone went away. Connect it, then start again.";

const button = document.getElementById("listen");
const access = document.getElementById("access");
const view = new View();
const ribbon = new Ribbon(document.getElementById("ribbon"));
let microphone = null;
let conversation = null;

/** Keeps the token that came with the address for as long as the page is open, and takes it out of sight. */
function keepToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  sessionStorage.setItem("token", given);
  history.replaceState(null, "", location.pathname + location.search);
}

/** Lets the button wait; it keeps the focus of who uses the keyboard. */
function occupy(busy) {
  button.setAttribute("aria-disabled", busy);
}

async function start() {
  view.problem("");
  access.hidden = true;
  view.state("Waiting for the microphone", "starting");
  occupy(true);
  try {
    microphone = await Microphone.open((chunk) => conversation?.send(chunk), () => stop(GONE));
  } catch (error) {
    view.state("Not listening", "idle");
    view.problem(error instanceof Problem ? error.message : `The page failed: ${error.message}`);
    occupy(false);
    return;
  }
  view.state("Waiting for edge-ser", "starting");
  conversation = new Conversation(hello(), { message: heard, broken, ended });
}

function hello() {
  const token = sessionStorage.getItem("token");
  const partials = document.getElementById("partials").checked;
  const message = { rate_hz: microphone.rateHz, format: "s16le", partials, levels: true };
  return token ? { ...message, token } : message;
}

/** Stops listening; what was said is still judged. */
async function stop(reason = "") {
  const listening = microphone;
  microphone = null;
  if (!listening) return;
  view.problem(reason);
  view.state("Finishing", "starting");
  occupy(true);
  await listening.stop();
  conversation?.finish();
}

const TAKES = {
  ready(message) {
    if (view.session !== message.session) {
      view.session = message.session;
      view.reset(message.labels, message.model);
      ribbon.reset(message.labels);
    }
    ribbon.start();
    view.state("Listening", "listening");
    button.textContent = "Stop";
    occupy(false);
  },
  level({ rms_dbfs: rmsDbfs, speech, ledger, at_s: atS }) {
    view.level(rmsDbfs, speech);
    view.ledger(ledger, conversation.unsentS);
    ribbon.hear(atS, rmsDbfs);
  },
  speech_started(event) {
    ribbon.begin(event);
    view.begin();
  },
  emotion(event) {
    ribbon.mark(event);
    view.answer(event);
    if (event.final) view.tell(event);
  },
  rejected(event) {
    ribbon.mark(event);
    view.answer(event);
  },
  summary(event) {
    view.ledger(event.ledger, conversation.unsentS);
  },
};

function heard(message) {
  TAKES[message.type]?.(message);
}

function broken() {
  view.state("The connection broke; trying again", "starting");
}

function ended(reason, code) {
  microphone?.stop();
  microphone = conversation = null;
  ribbon.stop();
  view.level(-Infinity, false);
  view.state("Not listening", "idle");
  if (reason) view.problem(reason);
  access.hidden = code !== BAD_TOKEN;
  if (code === BAD_TOKEN) access.elements.token.focus();
  button.textContent = "Start listening";
  occupy(false);
}

button.addEventListener("click", () => {
  if (button.getAttribute("aria-disabled") === "true") return;
  if (microphone) stop();
  else start();
});
access.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", access.elements.token.value.trim());
  start();
});
window.addEventListener("hashchange", keepToken);
keepToken();
