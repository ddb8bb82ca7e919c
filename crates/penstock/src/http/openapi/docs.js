"use strict";

// Shows openapi.json. Texts go into the page as texts only.

const METHODS = ["get", "post", "put", "patch", "delete"];
const AREAS = [
  ["Native", (path) => path.startsWith("/v1/")],
  ["Confluent, version 3", (path) => path.startsWith("/v3/")],
  ["The bridge itself", (path) => ["/healthz", "/openapi.json", "/docs"].includes(path)],
  ["Confluent, version 2", () => true],
];

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== undefined && child !== ""));
  return made;
}

function resolve(root, value) {
  for (let hops = 0; value && value.$ref && hops < 8; hops++) {
    value = value.$ref.slice(2).split("/").reduce((at, part) => at?.[part.replaceAll("~1", "/")], root);
  }
  return value ?? {};
}

// A schema as a sketch of its documents: what stands where, and what may be left out.
function sketch(root, schema, indent, seen) {
  const name = schema?.$ref;
  if (name && seen.includes(name)) return name.split("/").pop();
  const inside = name ? [...seen, name] : seen;
  const is = resolve(root, schema);
  const next = `${indent}  `;
  const note = is.description ? ` /* ${is.description} */` : "";
  const several = is.oneOf ?? is.anyOf;
  if (several) return several.map((one) => sketch(root, one, indent, inside)).join(`\n${indent}or `);
  if (is.allOf) return is.allOf.map((one) => sketch(root, one, indent, inside)).join(`\n${indent}and `);
  if (is.const !== undefined) return JSON.stringify(is.const);
  if (is.enum) return is.enum.map((one) => JSON.stringify(one)).join(" | ") + note;
  if (is.properties) {
    const required = is.required ?? [];
    const members = Object.entries(is.properties).map(([member, value]) => {
      const optional = required.includes(member) ? "" : "?";
      return `${next}"${member}"${optional}: ${sketch(root, value, next, inside)}`;
    });
    return members.length ? `{\n${members.join(",\n")}\n${indent}}` : "{}";
  }
  if (is.items) return `[${sketch(root, is.items, indent, inside)}]`;
  const type = Array.isArray(is.type) ? is.type.join(" | ") : is.type ?? "any value";
  return (is.format ? `${type} (${is.format})` : type) + note;
}

function contents(root, content) {
  return Object.entries(content ?? {}).map(([type, media]) =>
    element("div", {}, element("p", { class: "quiet" }, type), element("pre", {}, sketch(root, media.schema, "", []))));
}

function parameters(root, list) {
  if (!list.length) return undefined;
  const rows = list.map((one) => {
    const is = resolve(root, one);
    const schema = resolve(root, is.schema);
    const must = is.required ? "" : ", optional";
    return element("tr", {},
      element("td", {}, element("code", {}, is.name)),
      element("td", { class: "quiet" }, `${is.in}${must}`),
      element("td", {}, [is.description, schema.enum?.join(", ")].filter(Boolean).join(": ") || schema.type || ""));
  });
  return element("div", {}, element("h3", {}, "Parameters"), element("table", {}, ...rows));
}

function operation(root, path, method, item) {
  const asked = item[method];
  const body = element("div", { class: "body" });
  // Drawn when it is looked at: there are many.
  const draw = () => {
    if (body.hasChildNodes()) return;
    if (asked.description) body.append(element("p", {}, asked.description));
    const list = parameters(root, [...(item.parameters ?? []), ...(asked.parameters ?? [])]);
    if (list) body.append(list);
    const request = resolve(root, asked.requestBody);
    if (request.content) body.append(element("h3", {}, "Request"), ...contents(root, request.content));
    for (const [status, value] of Object.entries(asked.responses)) {
      const answer = resolve(root, value);
      const title = `${status === "default" ? "Otherwise" : status}: ${answer.description ?? ""}`;
      body.append(element("h3", {}, title), ...contents(root, answer.content));
    }
  };
  const made = element("details", { id: asked.operationId },
    element("summary", {},
      element("span", { class: `method ${method}` }, method.toUpperCase()),
      element("span", { class: "path" }, path),
      element("span", { class: "says" }, asked.summary ?? "")),
    body);
  made.addEventListener("toggle", draw);
  made.dataset.words = `${method} ${path} ${asked.summary ?? ""}`.toLowerCase();
  return made;
}

function show(root) {
  document.getElementById("about").textContent = `${root.info.description} OpenAPI ${root.openapi}.`;
  const main = document.getElementById("operations");
  main.replaceChildren();
  const left = new Set(Object.keys(root.paths));
  const areas = new Map();
  for (const [title, belongs] of AREAS) {
    for (const path of left) {
      if (!belongs(path)) continue;
      left.delete(path);
      const made = METHODS.filter((method) => root.paths[path][method])
        .map((method) => operation(root, path, method, root.paths[path]));
      areas.set(title, [...(areas.get(title) ?? []), ...made]);
    }
  }
  for (const title of ["Native", "Confluent, version 2", "Confluent, version 3", "The bridge itself"]) {
    if (areas.has(title)) main.append(element("section", {}, element("h2", {}, title), ...areas.get(title)));
  }
  document.getElementById("filter").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const one of main.querySelectorAll("details")) {
      one.hidden = !words.every((word) => one.dataset.words.includes(word));
    }
    for (const section of main.querySelectorAll("section")) {
      section.hidden = !section.querySelector("details:not([hidden])");
    }
  });
  const open = () => {
    const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    named?.setAttribute("open", "");
    named?.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
}

fetch("openapi.json")
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(`HTTP ${answer.status}`))))
  .then(show)
  .catch((error) => {
    document.getElementById("operations").textContent = `openapi.json could not be shown: ${error.message}`;
  });
