// SQL functions in JavaScript. Every export of the world in words.wit is one.

// Latin letters with marks, and what they are without.
const MARKED = "àáâãäåçèéêëìíîïñòóôõöùúûüýÿ";
const PLAIN = "aaaaaaceeeeiiiinooooouuuuyy";

export function slug(title) {
  return title
    .toLowerCase()
    .replace(/[à-ÿ]/g, (letter) => PLAIN[MARKED.indexOf(letter)] ?? letter)
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "");
}

export function similarity(a, b) {
  const pairs = (text) => {
    const letters = [...text.toLowerCase()];
    return letters.slice(1).map((letter, i) => letters[i] + letter);
  };
  const [left, right] = [pairs(a), pairs(b)];
  if (left.length + right.length === 0) return a === b ? 1 : 0;
  let common = 0;
  const rest = [...right];
  for (const pair of left) {
    const at = rest.indexOf(pair);
    if (at >= 0) {
      rest.splice(at, 1);
      common += 1;
    }
  }
  return (2 * common) / (left.length + right.length);
}

export function queryParams(url) {
  const start = url.indexOf("?");
  if (start < 0) return [];
  const query = url.slice(start + 1).split("#")[0];
  const decode = (part) => {
    try {
      return decodeURIComponent(part.replace(/\+/g, " "));
    } catch {
      // A string that is thrown is the error of a WIT result.
      throw `not a URL-encoded text: "${part}"`;
    }
  };
  return query
    .split("&")
    .filter((pair) => pair !== "")
    .map((pair) => {
      const [name, ...value] = pair.split("=");
      return [decode(name), decode(value.join("="))];
    });
}

export function clock() {
  return BigInt(Date.now());
}

export function dice() {
  return crypto.getRandomValues(new Int32Array(1))[0];
}

export function must(text) {
  if (text === "") throw new Error("nothing there");
  return text;
}
