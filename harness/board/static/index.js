// What TensorBoard calls: render() in an empty page of its own, below its Content-Security-Policy.

import { start } from "./main.js";

export async function render() {
  document.documentElement.lang = "en";
  const address = new URL("board", import.meta.url);
  const board = fetch(address); // on its way while the library loads
  board.catch(() => {}); // told by whoever awaits it
  const style = Object.assign(document.createElement("link"), {
    rel: "stylesheet", href: new URL("style.css", import.meta.url).href,
  });
  const library = Object.assign(document.createElement("script"), {
    src: new URL("vendor/echarts.min.js", import.meta.url).href,
  });
  await Promise.all([style, library].map((node) => new Promise((done, failed) => {
    node.addEventListener("load", done);
    node.addEventListener("error", () => failed(new Error(`${node.src || node.href} cannot be read`)));
    document.head.append(node);
  })));
  start(document.body, address, board);
}
