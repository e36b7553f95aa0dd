package dlq

import (
	"cmp"
	"slices"
	"strings"
)

// maxChanges bounds the distinct changes that Changes counts.
const maxChanges = 200

// Changes counts what a fix changes in many events. The zero value has none.
type Changes struct {
	// Unchanged counts the events that the fix leaves as they are.
	Unchanged int
	counts    map[FieldChange]int
}

// ChangeCount is a change with the number of events that have it.
type ChangeCount struct {
	FieldChange
	Count int
}

// Add compares an event before and after a fix with the expression. The names of unknown
// fields count as known if the expression or the detail of the rejection has them.
func (c *Changes) Add(s *Stored, expression string, before, after []byte) {
	changes := Diff(before, after, func(name string) bool {
		return strings.Contains(expression, name) || strings.Contains(s.Detail, name)
	})
	if len(changes) == 0 {
		c.Unchanged++
	}
	if c.counts == nil {
		c.counts = map[FieldChange]int{}
	}
	for _, change := range slices.Compact(changes) {
		if _, ok := c.counts[change]; ok || len(c.counts) < maxChanges {
			c.counts[change]++
		}
	}
}

// Counts returns the changes, the most frequent first.
func (c *Changes) Counts() []ChangeCount {
	all := make([]ChangeCount, 0, len(c.counts))
	for change, n := range c.counts {
		all = append(all, ChangeCount{change, n})
	}
	slices.SortFunc(all, func(a, b ChangeCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Change, b.Change))
	})
	return all
}
