package consume

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

// situation is a behaviour of the real service. The embedded server plays it to the
// official client and to ours. docs/pubsub.md documents what each client does, and the test
// requires both to do so.
type situation struct {
	name string
	// source names where the service's behaviour is known from.
	source string
	// official and ours are the results of the clients.
	official, ours string
	// note says why ours differs, if it is not plainly better.
	note string

	// slow situations last a minute and more, since the official client's intervals
	// cannot be changed.
	slow bool
	// timed situations measure how quickly a client acts. Other load of the machine only
	// adds to that time, so they are played again for as long as timedTries.
	timed   bool
	server  pubsubserver.Options
	options []pubsubserver.SubscriptionOption
	play    func(t *testing.T, s *pubsubserver.Server, begin start) string
}

var only = flag.String("consume.situation", "", "play only the conformance situations whose names contain this")

const (
	// patience bounds the waits for effects that a slow machine delays. It passes only if
	// something is broken.
	patience = 3 * time.Minute
	// prompt is how soon our client must have acted where no interval of its own applies.
	prompt = 20 * time.Second
	// timedTries is how long a timed situation is played again.
	timedTries = 2 * time.Minute
)

const (
	received = "receives all"
	ends     = "Receive ends"
	goesOn   = "goes on"
)

// playOnce plays a situation to a client on a server of its own.
func playOnce(t *testing.T, x situation, begin start) string {
	s, err := pubsubserver.Start(t.Context(), x.server)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = s.Close() }()
	if err := errors.Join(s.CreateTopic(topicName), s.CreateSubscription(subName, topicName, x.options...)); err != nil {
		return err.Error()
	}
	return x.play(t, s, begin)
}

// TestConformance plays each situation to both clients, side by side. The slow ones
// mostly wait, so all of them run at once; the others take turns.
func TestConformance(t *testing.T) {
	type run struct {
		situation
		client string
		begin  start
		want   string
		got    string
	}
	var fast, slow []*run
	for _, x := range situations {
		if !strings.Contains(x.name, *only) {
			continue
		}
		pair := []*run{
			{situation: x, client: "official", begin: startOfficial, want: x.official},
			{situation: x, client: "ours", begin: startOurs, want: x.ours},
		}
		switch {
		case !x.slow:
			fast = append(fast, pair...)
		case !testing.Short():
			slow = append(slow, pair...)
		}
	}
	play := func(r *run) {
		for began := time.Now(); ; {
			if r.got = playOnce(t, r.situation, r.begin); r.got == r.want {
				return
			}
			if !r.timed || time.Since(began) > timedTries {
				break
			}
		}
		t.Errorf("%s: %s: %s, want %s", r.name, r.client, r.got, r.want)
	}
	var all sync.WaitGroup
	for _, r := range slow {
		all.Go(func() { play(r) })
	}
	next := make(chan *run)
	for range 2 {
		all.Go(func() {
			for r := range next {
				play(r)
			}
		})
	}
	for _, r := range fast {
		next <- r
	}
	close(next)
	all.Wait()

	const row = "%-66s  %-45s  %s\n"
	var table strings.Builder
	fmt.Fprintf(&table, row, "situation", "official client", "ours")
	played := append(fast, slow...)
	for i := 0; i < len(played); i += 2 {
		fmt.Fprintf(&table, row, played[i].name, played[i].got, played[i+1].got)
	}
	t.Logf("\n%s", table.String())
}

var update = flag.Bool("update", false, "write the table in docs/pubsub.md anew")

// TestConformanceTable compares the table of docs/pubsub.md with the situations.
func TestConformanceTable(t *testing.T) {
	const file, begin, end = "../../docs/pubsub.md", "<!-- situations -->\n", "<!-- end of situations -->"
	var table strings.Builder
	table.WriteString("| situation | official client | ours | known from |\n|---|---|---|---|\n")
	for _, x := range situations {
		ours := x.ours
		if x.note != "" {
			ours += " ¹"
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", x.name, x.official, ours, x.source)
	}
	for _, x := range situations {
		if x.note != "" {
			fmt.Fprintf(&table, "\n¹ %s: %s\n", x.name, x.note)
		}
	}
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(doc), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no place for the table", file)
	}
	want := before + begin + "\n" + table.String() + "\n" + end + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(doc) != want {
		t.Errorf("%s differs from the situations; run go test ./internal/consume -run ConformanceTable -update", file)
	}
}
