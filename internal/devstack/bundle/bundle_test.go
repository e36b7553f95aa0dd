package bundle

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func numbered(from, to int) []Message {
	var all []Message
	for i := from; i < to; i++ {
		all = append(all, Message{ID: fmt.Sprint(i)})
	}
	return all
}

func count(published []bool) (n int) {
	for _, ok := range published {
		if ok {
			n++
		}
	}
	return n
}

// TestOneTakesOthersWithIt has one message that Pub/Sub refuses, among others of
// its own payload and of another one.
func TestOneTakesOthersWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Publisher
		var streams sync.WaitGroup
		streams.Go(func() {
			payload := numbered(0, 150)
			payload[120].Refused = true
			published, err := p.Publish(t.Context(), payload)
			if err != nil || count(published) != 100 || published[99] != true || published[100] != false {
				t.Errorf("%d of 150 published, %v", count(published), err)
			}
		})
		synctest.Wait()
		streams.Go(func() {
			// The first 50 fill the request of the one that is refused.
			published, err := p.Publish(t.Context(), numbered(150, 210))
			if err != nil || count(published) != 10 || published[50] != true {
				t.Errorf("%d of 60 published, %v", count(published), err)
			}
		})
		streams.Wait()
		time.Sleep(Delay)
		published, err := p.Publish(t.Context(), numbered(210, 220))
		if err != nil || count(published) != 10 {
			t.Errorf("%d of 10 published later, %v", count(published), err)
		}
	})
}

func TestBundleLosesNeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		p := Publisher{Lose: func(m []Message) bool {
			requests++
			return requests%2 == 0
		}}
		began := time.Now()
		published, err := p.Publish(t.Context(), numbered(0, 50))
		if err != nil || count(published) != 50 || time.Since(began) != Delay {
			t.Errorf("%d of 50 published after %v, %v", count(published), time.Since(began), err)
		}
		if published, err := p.Publish(t.Context(), numbered(50, 150)); err != nil || count(published) != 0 {
			t.Errorf("%d of 100 published, %v", count(published), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := p.Publish(ctx, numbered(0, 1)); err == nil {
			t.Error("no error when the caller has gone")
		}
		time.Sleep(2 * Delay)
	})
}
