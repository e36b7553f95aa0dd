package dlq

import (
	"fmt"
	"testing"
	"time"
)

func TestFold(t *testing.T) {
	at := time.Date(2026, time.November, 20, 10, 0, 0, 0, time.UTC)
	var groups []*GroupCount
	for i := range 80 {
		groups = append(groups, &GroupCount{
			Group: Group{Reason: "invalid_event", Service: "sams", Feature: fmt.Sprintf("f.%d", i), Action: "a", Detail: "no"},
			Count: 2, ReplayedBefore: 1, First: at.Add(time.Duration(i) * time.Hour), Last: at.Add(time.Duration(i+1) * time.Hour),
		})
	}
	for i := range 3 {
		groups = append(groups, &GroupCount{Group: Group{Reason: "oversized", Service: "sams", Feature: fmt.Sprint("f", i)}, Count: 100 - i, First: at, Last: at})
	}
	rows := Fold(groups, 3)
	if len(rows) != 4 {
		t.Fatalf("%+v", rows)
	}
	if r := rows[0]; r.Features != 80 || r.Count != 160 || r.ReplayedBefore != 80 || r.Feature != "" || !r.First.Equal(at) || !r.Last.Equal(at.Add(80*time.Hour)) {
		t.Errorf("%+v", r)
	}
	if r := rows[1]; r.Features != 1 || r.Feature != "f0" || r.Count != 100 {
		t.Errorf("%+v", r)
	}
	if groups[0].Count != 2 {
		t.Error("the groups are changed")
	}
}
