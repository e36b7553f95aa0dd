package dlq

import (
	"cmp"
	"slices"
)

// Row is a group for a table: one fault of one service.
type Row struct {
	GroupCount
	// Features is how many pairs of feature and action the row stands for; Feature and
	// Action are empty if it is more than one.
	Features int
}

// Fold joins groups that differ only in feature and action, where these are more than
// limit: names that contain an id would make a row each. The largest row comes first.
func Fold(groups []*GroupCount, limit int) []Row {
	same := map[Group][]*GroupCount{}
	var keys []Group
	for _, g := range groups {
		key := g.Group
		key.Feature, key.Action = "", ""
		if same[key] == nil {
			keys = append(keys, key)
		}
		same[key] = append(same[key], g)
	}
	var rows []Row
	for _, key := range keys {
		members := same[key]
		if len(members) <= limit {
			for _, g := range members {
				rows = append(rows, Row{*g, 1})
			}
			continue
		}
		row := Row{*members[0], len(members)}
		row.Group = key
		for _, g := range members[1:] {
			row.Count += g.Count
			row.ReplayedBefore += g.ReplayedBefore
			widen(&row.First, &row.Last, g.First)
			widen(&row.First, &row.Last, g.Last)
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(b.Count, a.Count) })
	return rows
}
