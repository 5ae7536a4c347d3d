// The admin token: from the link's fragment or from the form, kept for this tab only.

const KEPT = "offpeak-token";

/** The token in the address, which it is taken out of; null where there is none. */
export function fromAddress() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get("token");
  if (token === null) return null;
  fragment.delete("token");
  const rest = fragment.toString();
  history.replaceState(null, "", location.pathname + location.search + (rest ? `#${rest}` : ""));
  return token.trim();
}

export const kept = () => sessionStorage.getItem(KEPT);

export function keep(token) {
  sessionStorage.setItem(KEPT, token);
}

export function forget() {
  sessionStorage.removeItem(KEPT);
}
