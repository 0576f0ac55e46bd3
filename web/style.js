// Style sheets of our own.

/** Puts rules into the page; to be called once for each. */
export function addStyle(rules) {
  const style = document.createElement("style");
  style.textContent = rules;
  document.head.append(style);
}
