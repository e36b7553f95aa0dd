package dlqui

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

func TestDiffPutsChangedLinesSideBySide(t *testing.T) {
	for _, c := range []struct {
		name, before, after string
		want                []diffRow
	}{
		{"same", "a\nb", "a\nb", []diffRow{{"a", "a", false, false}, {"b", "b", false, false}}},
		{"changed", "a\nb\nc", "a\nx\nc", []diffRow{{"a", "a", false, false}, {"b", "x", true, true}, {"c", "c", false, false}}},
		{"removed", "a\nb\nc", "a\nc", []diffRow{{"a", "a", false, false}, {"b", "", true, false}, {"c", "c", false, false}}},
		{"added", "a", "a\nb", []diffRow{{"a", "a", false, false}, {"", "b", false, true}}},
		{"the last is removed", "a,\nb", "a", []diffRow{{"a,", "a", false, false}, {"b", "", true, false}}},
	} {
		if got := cmp.Diff(c.want, diff(c.before, c.after)); got != "" {
			t.Errorf("%s: %s", c.name, got)
		}
	}
	if rows := diff(strings.Repeat("a\n", 10_000), ""); len(rows) > 2*maxDiffLines {
		t.Errorf("%d rows", len(rows))
	}
}

func TestShellQuotesArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"worker dlq stats --service sams":            {"stats", "--service", "sams"},
		`worker dlq replay --jq 'del(.a) # it'\''s'`: {"replay", "--jq", "del(.a) # it's"},
		"worker dlq show ''":                         {"show", ""},
		"worker dlq show '$(rm)'":                    {"show", "$(rm)"},
		"worker dlq show 'a\nb'":                     {"show", "a\nb"},
	} {
		if got := shell(args...); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestFaultsAreFilteredOrderedAndGrouped(t *testing.T) {
	now := time.Now()
	faults := []*dlq.FaultCount{
		{ID: "old", Count: 100, CameBack: 0, First: now.Add(-9 * time.Hour), Last: now.Add(-5 * time.Hour), Trend: dlq.Old, Reason: "a", Service: "s"},
		{ID: "growing", Count: 3, CameBack: 1, First: now.Add(-time.Hour), Last: now, Trend: dlq.Growing, Reason: "b", Service: "s"},
		{ID: "steady", Count: 50, CameBack: 50, First: now.Add(-7 * time.Hour), Last: now.Add(-time.Hour), Trend: dlq.Steady, Reason: "a", Service: "t", Environments: []string{"dev"}},
	}
	for _, c := range []struct {
		query faultsQuery
		want  string
	}{
		{faultsQuery{}, "growing steady old"},
		{faultsQuery{Sort: "nonsense"}, "growing steady old"},
		{faultsQuery{Sort: "count"}, "old steady growing"},
		{faultsQuery{Sort: "last"}, "growing steady old"},
		{faultsQuery{Sort: "first"}, "old steady growing"},
		{faultsQuery{Sort: "back"}, "steady growing old"},
		{faultsQuery{Reason: "a"}, "steady old"},
		{faultsQuery{Service: "s", Reason: "b"}, "growing"},
		{faultsQuery{Environment: "dev"}, "steady"},
		{faultsQuery{Text: "GROW"}, "growing"},
		{faultsQuery{Fold: "reason"}, "b: growing a: steady old"},
		{faultsQuery{Fold: "service", Sort: "count"}, "s: old growing t: steady"},
	} {
		groups, _, _ := c.query.groups(faults)
		var got []string
		for _, g := range groups {
			if g.Name != "" {
				got = append(got, g.Name+":")
			}
			for _, f := range g.Faults {
				got = append(got, f.ID)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %s, want %s", c.query, strings.Join(got, " "), c.want)
		}
	}
}

func TestChartDrawsEachHour(t *testing.T) {
	svg := string(chart([]int{0, 1, 10}, 30, 20))
	if !strings.Contains(svg, "11 in the last 3 hours, 10 in the last one") || strings.Count(svg, "<rect") != 3 || !strings.Contains(svg, `height="20.0"`) {
		t.Error(svg)
	}
	if svg := string(chart(nil, 30, 20)); strings.Count(svg, "<rect") != 0 {
		t.Error(svg)
	}
}
