package dlq

import (
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
)

func TestClockOffsetIsLearntFromTheDate(t *testing.T) {
	server := time.Date(2026, 11, 20, 10, 0, 0, 700_000_000, time.UTC)
	header := metadata.Pairs("date", server.Format(http.TimeFormat))
	for _, c := range []struct {
		name        string
		localAhead  time.Duration
		least, most time.Duration // bounds of the offset
		header      metadata.MD
	}{
		{"right", 0, 0, 0, header},
		{"right, within what a date tells", 200 * time.Millisecond, 0, 0, header},
		{"a minute behind", -time.Minute, time.Minute, time.Minute + dateResolution, header},
		{"a minute ahead", time.Minute, -time.Minute, -time.Minute + dateResolution, header},
		{"no date", time.Minute, 0, 0, nil},
		{"no date at all", time.Minute, 0, 0, metadata.Pairs("date", "soon")},
	} {
		var k clock
		asked := server.Add(c.localAhead - 20*time.Millisecond)
		k.learn(c.header, asked, asked.Add(40*time.Millisecond))
		if got := time.Duration(k.offset.Load()); got < c.least || got > c.most {
			t.Errorf("%s: %v, want %v to %v", c.name, got, c.least, c.most)
		}
	}
}
