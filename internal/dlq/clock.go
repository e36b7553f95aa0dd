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

// Publish times are of Pub/Sub's clock, and the start of a command is of the
// clock of whoever is on call. One that is a minute off would make old letters
// look new, or new ones old.

const (
	// dateResolution is that of the Date in an answer.
	dateResolution = time.Second
	// maxClockError is how far a clock may be off and still count as right.
	maxClockError = 100 * time.Millisecond
)

// clock is how far Pub/Sub's clock is ahead of the local one.
type clock struct{ offset atomic.Int64 }

// ask returns the option of a call whose answer tells the time, and what is to be
// called after it.
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
		c.offset.Store(int64(behind)) // the most that it can be: old letters stay old
	case behind < -maxClockError:
		c.offset.Store(int64(behind))
	default:
		c.offset.Store(0)
	}
}

// futureGrace is for how long after the start messages from the future count as
// having been there. A queue that keeps growing must not keep the reader for ever.
const futureGrace = 30 * time.Second

// maybeOld reports whether a message may have been there at the start although its
// time says otherwise.
func (q *Queue) maybeOld(m *pubsubpb.PubsubMessage) bool {
	return fromTheFuture(m) && time.Since(q.started) < futureGrace
}

// fromTheFuture reports whether a message just received was published later than
// now: then the local clock is behind, and nothing says that the message came
// after the start.
func fromTheFuture(m *pubsubpb.PubsubMessage) bool {
	return time.Until(m.GetPublishTime().AsTime()) > maxClockError
}
