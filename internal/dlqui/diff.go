package dlqui

import (
	"slices"
	"strings"
)

// diffRow is a line of data before and after a fix. If the line is both removed and added,
// the fix has changed it. The side without the line is empty.
type diffRow struct {
	Before, After  string
	Removed, Added bool
}

// maxDiffLines bounds the lines of each text, because the work of a comparison grows with
// their square.
const maxDiffLines = 400

// diff puts two texts side by side. Lines that differ stand beside each other.
func diff(before, after string) []diffRow {
	a, b := lines(before), lines(after)
	// common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i, x := range slices.Backward(a) {
		for j, y := range slices.Backward(b) {
			if equal(x, y) {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var rows []diffRow
	var removed, added []string
	flush := func() {
		for i := range max(len(removed), len(added)) {
			var row diffRow
			if i < len(removed) {
				row.Before, row.Removed = removed[i], true
			}
			if i < len(added) {
				row.After, row.Added = added[i], true
			}
			rows = append(rows, row)
		}
		removed, added = nil, nil
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && equal(a[i], b[j]):
			flush()
			rows = append(rows, diffRow{Before: a[i], After: b[j]})
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			removed = append(removed, a[i])
			i++
		default:
			added = append(added, b[j])
			j++
		}
	}
	flush()
	return rows
}

// equal compares two lines of JSON without the comma at their ends, which appears when a
// line follows.
func equal(a, b string) bool { return strings.TrimSuffix(a, ",") == strings.TrimSuffix(b, ",") }

func lines(text string) []string {
	all := strings.Split(text, "\n")
	return all[:min(len(all), maxDiffLines)]
}
