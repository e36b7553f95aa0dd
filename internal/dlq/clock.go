package dlq

import (
	"net/http"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Publish times are by Pub/Sub's clock, and the start of a command is by the local clock.
// Without a correction, a local clock that is a minute off would make old messages look
// new, or new ones old.

const (
	// dateResolution is the resolution of the Date in an answer.
	dateResolution = time.Second
	// maxClockError is the error up to which a clock counts as right.
	maxClockError = 100 * time.Millisecond
)

// clock measures how far Pub/Sub's clock is ahead of the local one.
type clock struct{ offset atomic.Int64 }

// ask returns an option for a call, and a function to call after it, which compares
// the clocks by the answer.
func (c *clock) ask() (option gax.CallOption, learn func()) {
	var header metadata.MD
	asked := time.Now()
	return gax.WithGRPCOptions(grpc.Header(&header)), func() { c.learn(header, asked, time.Now()) }
}

// learn compares the clocks by an answer to a question that was asked at asked.
// Google's front ends put a Date into every answer; emulators may not.
func (c *clock) learn(header metadata.MD, asked, answered time.Time) {
	dates := header.Get("date")
	if len(dates) == 0 {
		return
	}
	date, err := http.ParseTime(dates[0])
	if err != nil {
		return
	}
	// The server's time was within [date, date+1s) at some time in between.
	ahead, behind := date.Sub(answered), date.Add(dateResolution).Sub(asked)
	switch {
	case ahead > maxClockError:
		c.offset.Store(int64(behind)) // the largest possible offset, so that no old message counts as new
	case behind < -maxClockError:
		c.offset.Store(int64(behind))
	default:
		c.offset.Store(0)
	}
}

// futureGrace is how long after the start a message from the future counts as older
// than the start. It is bounded, because a queue that keeps growing would never end.
const futureGrace = 30 * time.Second

// maybeOld reports whether a message may be older than the start although its
// publish time is later.
func (q *Queue) maybeOld(m *pubsubpb.PubsubMessage) bool {
	return fromTheFuture(m) && time.Since(q.started) < futureGrace
}

// fromTheFuture reports whether the publish time of a message just received is later
// than now. Then the local clock is behind, and the publish time does not prove that
// the message is newer than the start.
func fromTheFuture(m *pubsubpb.PubsubMessage) bool {
	return time.Until(m.GetPublishTime().AsTime()) > maxClockError
}
