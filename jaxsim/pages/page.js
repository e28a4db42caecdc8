// The head of a column is a button that sorts the table by it, first with the largest number, or the first text, on top.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const sort = () => {
      const before = head.getAttribute("aria-sort");
      const rows = [...table.tBodies[0].rows];
      const first = rows.some((row) => row.cells[column].dataset.value !== undefined) ? "descending" : "ascending";
      const order = before === null ? first : before === "descending" ? "ascending" : "descending";
      const value = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
      };
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
        const difference = typeof x === "number" ? x - y : x.localeCompare(y);
        return order === "ascending" ? difference : -difference;
      };
      table.tBodies[0].append(...rows.sort(compare));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
    };
    button.addEventListener("click", sort);
  });
}
