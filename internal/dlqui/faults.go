package dlqui

import (
	"cmp"
	"net/url"
	"slices"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// faultsQuery is the selection in the address of the list of faults.
type faultsQuery struct {
	Text, Reason, Service, Environment string
	// Sort is the value of one of the orders, and Fold that of one of the folds.
	Sort, Fold string
	// All lifts the limit of maxRows.
	All bool
}

func parseFaultsQuery(v url.Values) faultsQuery {
	return faultsQuery{v.Get("text"), v.Get("reason"), v.Get("service"), v.Get("environment"), v.Get("sort"), v.Get("fold"), v.Get("all") != ""}
}

// orders are the orders of the faults. The first one is the default.
var orders = []choice{{"growing", "growing first"}, {"count", "most first"}, {"last", "last seen first"}, {"first", "oldest first"}, {"back", "most came back"}}

// folds are the groupings of the faults.
var folds = []choice{{"", "no groups"}, {"reason", "by reason"}, {"service", "by service"}, {"owner", "by owner"}}

// choice is an option of a form.
type choice struct{ Value, Text string }

var trendRank = map[dlq.Trend]int{dlq.Growing: 0, dlq.Steady: 1, dlq.Falling: 2, dlq.Stopped: 3, dlq.Old: 4}

// match reports whether the query selects a fault.
func (q faultsQuery) match(f *dlq.FaultCount) bool {
	if q.Reason != "" && f.Reason != q.Reason || q.Service != "" && f.Service != q.Service ||
		q.Environment != "" && !slices.Contains(f.Environments, q.Environment) {
		return false
	}
	text := strings.ToLower(q.Text)
	return strings.Contains(strings.ToLower(strings.Join([]string{f.ID, f.Reason, f.Service, f.Detail, f.Feature, f.Action, f.Owner}, "\n")), text)
}

// compare orders two faults.
func (q faultsQuery) compare(a, b *dlq.FaultCount) int {
	count := cmp.Compare(b.Count, a.Count)
	switch q.Sort {
	case "count":
		return count
	case "last":
		return cmp.Or(b.Last.Compare(a.Last), count)
	case "first":
		return cmp.Or(a.First.Compare(b.First), count)
	case "back":
		return cmp.Or(cmp.Compare(b.CameBack*a.Count, a.CameBack*b.Count), count)
	}
	return cmp.Or(cmp.Compare(trendRank[a.Trend], trendRank[b.Trend]), count)
}

// faultGroup is a part of the faults. Name is empty if they are not grouped.
type faultGroup struct {
	Name   string
	Count  int
	Faults []*dlq.FaultCount
}

// maxRows bounds the faults on a page, unless a person asks for all.
const maxRows = 200

// groups selects, orders and groups the faults. The group with the first fault is first.
// It returns how many faults and messages were selected, also beyond maxRows.
func (q faultsQuery) groups(faults []*dlq.FaultCount) (groups []*faultGroup, shown, count int) {
	var selected []*dlq.FaultCount
	for _, f := range faults {
		if q.match(f) {
			selected = append(selected, f)
		}
	}
	slices.SortStableFunc(selected, q.compare)
	for _, f := range selected {
		count += f.Count
	}
	if shown = len(selected); shown > maxRows && !q.All {
		selected = selected[:maxRows]
	}
	byName := map[string]*faultGroup{}
	for _, f := range selected {
		name := ""
		switch q.Fold {
		case "reason":
			name = f.Reason
		case "service":
			name = cmp.Or(f.Service, "no service")
		case "owner":
			name = cmp.Or(f.Owner, "no owner")
		}
		g := byName[name]
		if g == nil {
			g = &faultGroup{Name: name}
			byName[name] = g
			groups = append(groups, g)
		}
		g.Faults = append(g.Faults, f)
		g.Count += f.Count
	}
	return groups, shown, count
}

// command returns the command with the same filters. The command has no filter by
// text, and neither order nor groups.
func (q faultsQuery) command() string {
	args := []string{"stats"}
	for _, flag := range []choice{{"--reason", q.Reason}, {"--service", q.Service}, {"--environment", q.Environment}} {
		if flag.Text != "" {
			args = append(args, flag.Value, flag.Text)
		}
	}
	return shell(args...)
}
