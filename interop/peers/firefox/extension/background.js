"use strict";

// Loads pages in tabs of their own, each through the proxy it was given, and tells how that went. The driver calls
// `begin`, `abandon` and `takeReports` from control.html.

const EVERYTHING = { urls: ["<all_urls>"] };
const DOCUMENTS = { urls: ["<all_urls>"], types: ["main_frame"] };

const loads = new Map(); // by key, until they are reported or abandoned
const tabs = new Map(); // the same loads by tab
const reports = [];

function begin(key, url, proxy) {
  const load = { key, url, proxy };
  loads.set(key, load);
  open(load).catch((error) => fail(load, error));
}

async function open(load) {
  // The tab comes first, so that its number is known before anything is asked for.
  const tab = await browser.tabs.create({ url: "about:blank", active: false });
  load.tab = tab.id;
  if (!loads.has(load.key)) {
    close(load);
    return;
  }
  tabs.set(tab.id, load);
  await browser.tabs.update(tab.id, { url: load.url });
}

function abandon(key) {
  const load = loads.get(key);
  if (load) {
    close(load);
  }
}

function takeReports() {
  return reports.splice(0);
}

function close(load) {
  loads.delete(load.key);
  if (load.tab !== undefined) {
    tabs.delete(load.tab);
    browser.tabs.remove(load.tab).catch(() => {}); // it is closed already
  }
}

function report(load, outcome) {
  if (loads.has(load.key)) {
    reports.push({ key: load.key, url: load.url, ...outcome });
    close(load);
  }
}

function fail(load, reason) {
  report(load, { error: String(reason) });
}

// A page is done when its response is complete, its bytes were hashed, and the page and all it needs were loaded.
function finishIfDone(load) {
  const { status, body, timing } = load;
  if (status !== undefined && body !== undefined && timing !== undefined) {
    report(load, { status, ...body, ...timing });
  }
}

async function digest(chunks) {
  const bytes = await new Blob(chunks).arrayBuffer();
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const sha256 = Array.from(hash, (value) => value.toString(16).padStart(2, "0")).join("");
  return { size: bytes.byteLength, sha256 };
}

// Every request of a tab takes the tab's proxy, and so do the connections that Firefox makes ahead of a request.
browser.proxy.onRequest.addListener((details) => tabs.get(details.tabId)?.proxy ?? { type: "direct" }, EVERYTHING);

// The document's bytes are taken as they come from the network. What is no text would be offered as a download and
// would never become a page: it becomes an empty one.
browser.webRequest.onHeadersReceived.addListener(
  (details) => {
    const load = tabs.get(details.tabId);
    if (!load || (details.statusCode >= 300 && details.statusCode < 400)) {
      return {};
    }
    const fields = details.responseHeaders.map(({ name, value }) => [name.toLowerCase(), value]);
    const isText = fields.some(([name, value]) => name === "content-type" && value.startsWith("text/"));
    collect(load, browser.webRequest.filterResponseData(details.requestId), isText);
    return isText ? {} : { responseHeaders: [{ name: "content-type", value: "text/plain" }] };
  },
  DOCUMENTS,
  ["blocking", "responseHeaders"],
);

function collect(load, filter, isText) {
  const chunks = [];
  filter.ondata = (event) => {
    chunks.push(event.data);
    if (isText) {
      filter.write(event.data);
    }
  };
  filter.onstop = async () => {
    filter.close();
    load.body = await digest(chunks);
    finishIfDone(load);
  };
  filter.onerror = () => fail(load, filter.error);
}

browser.webRequest.onCompleted.addListener((details) => {
  const load = tabs.get(details.tabId);
  if (load) {
    load.status = details.statusCode;
    finishIfDone(load);
  }
}, DOCUMENTS);

browser.webRequest.onErrorOccurred.addListener((details) => {
  const load = tabs.get(details.tabId);
  if (load) {
    fail(load, details.error);
  }
}, DOCUMENTS);

// A proxy that asks for credentials gets what the tab has, or nothing: nobody is there to ask.
browser.webRequest.onAuthRequired.addListener(() => ({ cancel: true }), EVERYTHING, ["blocking"]);

browser.webNavigation.onCompleted.addListener(async (details) => {
  const load = tabs.get(details.tabId);
  if (!load || details.frameId !== 0 || !details.url.startsWith("https:")) {
    return;
  }
  try {
    const [timing] = await browser.tabs.executeScript(details.tabId, { code: `(${readTiming})()` });
    load.timing = timing;
    finishIfDone(load);
  } catch (error) {
    fail(load, error);
  }
});

// Runs in the page.
function readTiming() {
  const [navigation] = performance.getEntriesByType("navigation");
  return {
    protocol: navigation.nextHopProtocol,
    resources: performance.getEntriesByType("resource").map((entry) => ({
      url: entry.name,
      status: entry.responseStatus,
      protocol: entry.nextHopProtocol,
      size: entry.decodedBodySize,
    })),
  };
}
