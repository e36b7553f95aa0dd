package dlq

import (
	"testing"
	"time"
)

func TestAgoIsInTheLargestUnit(t *testing.T) {
	now := time.Date(2026, time.November, 20, 10, 0, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]string{
		-time.Hour: "just now", 0: "just now", 40 * time.Second: "40 s ago", 119 * time.Second: "1 min ago",
		2 * time.Hour: "2 h ago", 47 * time.Hour: "47 h ago", 48 * time.Hour: "2 d ago", 31 * 24 * time.Hour: "31 d ago",
	} {
		if got := Ago(now.Add(-ago), now); got != want {
			t.Errorf("%v: %s, want %s", ago, got, want)
		}
	}
}
