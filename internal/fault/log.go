package fault

import (
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// logEvery is how often the log has a line for each fault that has occurred.
	logEvery = time.Minute
	// A publisher can invent details, and each may be another fault. So a Log follows at
	// most maxFaults, keeps maxTexts details and normalizes maxNormalized of them in the
	// time of logEvery; everything else is counted together. Normalizing 10,000 details
	// takes 0.3 s of CPU.
	maxFaults     = 50
	maxTexts      = 1000
	maxNormalized = 10_000
	// maxQueued bounds the rejections that wait to be counted, of about 1 KB each.
	maxQueued = 4096
)

// Rejection is one event that was dead-lettered.
type Rejection struct {
	Reason, Service, Detail string
	// EventID may be empty. MessageID is that of Pub/Sub. Release is the publisher's
	// service_version.
	EventID, MessageID, Release string
}

// Log writes an info line for each fault and minute, so that the log has a history of
// faults. It is safe for concurrent use. A goroutine of its own counts and writes, because
// normalizing takes longer than a caller can wait; Close ends it.
type Log struct {
	log     *slog.Logger
	queue   chan Rejection
	missed  atomic.Int64 // rejections that came while the queue was full
	closing chan struct{}
	once    sync.Once
	done    chan struct{}
}

// NewLog returns a Log, which must be closed.
func NewLog(log *slog.Logger) *Log {
	l := &Log{log: log, queue: make(chan Rejection, maxQueued), closing: make(chan struct{}), done: make(chan struct{})}
	go l.run()
	return l
}

// Add counts a rejection. It does not block. It copies the texts, because they may be part
// of a larger message that must be freed.
func (l *Log) Add(r Rejection) {
	r.Service, r.EventID = strings.Clone(r.Service), strings.Clone(r.EventID)
	r.MessageID, r.Release = strings.Clone(r.MessageID), strings.Clone(r.Release)
	select {
	case l.queue <- r:
	default:
		l.missed.Add(1)
	}
}

// Close writes the remaining counts to the log and returns. No call of Add may follow.
func (l *Log) Close() {
	l.once.Do(func() { close(l.closing) })
	<-l.done
}

func (l *Log) run() {
	defer close(l.done)
	ticker := time.NewTicker(logEvery)
	defer ticker.Stop()
	var c counts
	for {
		select {
		case r := <-l.queue:
			c.add(r)
		case <-ticker.C:
			l.write(&c)
		case <-l.closing:
			for {
				select {
				case r := <-l.queue:
					c.add(r)
					continue
				default:
				}
				break
			}
			l.write(&c)
			return
		}
	}
}

// write logs the counts and resets them.
func (l *Log) write(c *counts) {
	for _, f := range c.order {
		l.log.Info("Events of a fault were dead-lettered", "fault", f.fault.ID(), "count", f.count,
			"reason", f.fault.Reason, "service", f.fault.Service, "detail", f.fault.Detail,
			"event_id", f.eventID, "message_id", f.messageID, "release", f.release)
	}
	if others := c.others + int(l.missed.Swap(0)); others > 0 {
		l.log.Info("Events of further faults were dead-lettered", "fault", "other", "count", others, "faults_named", len(c.order))
	}
	*c = counts{}
}

// counts are the rejections since the last lines. The zero value has none.
type counts struct {
	order      []*faultCount // in the order of their first rejection
	faults     map[Fault]*faultCount
	texts      map[text]*faultCount
	normalized int
	others     int
}

// text is a reason, a service and a detail as they came.
type text struct{ reason, service, detail string }

type faultCount struct {
	fault Fault
	count int
	// Of the first rejection, safe to show.
	eventID, messageID, release string
}

// add counts a rejection with its fault, or with the others.
func (c *counts) add(r Rejection) {
	if f := c.find(r); f != nil {
		f.count++
		return
	}
	c.others++
}

// find returns the count of a rejection's fault, nil if there are too many.
func (c *counts) find(r Rejection) *faultCount {
	as := text{r.Reason, r.Service, r.Detail}
	if f, ok := c.texts[as]; ok {
		return f
	}
	if c.normalized++; c.normalized > maxNormalized {
		return nil
	}
	of := Of(r.Reason, r.Service, r.Detail)
	f, ok := c.faults[of]
	if !ok {
		if len(c.order) >= maxFaults {
			return nil
		}
		if c.faults == nil {
			c.faults, c.texts = map[Fault]*faultCount{}, map[text]*faultCount{}
		}
		f = &faultCount{fault: of, eventID: uuidOf(r.EventID), messageID: Word(r.MessageID), release: Word(r.Release)}
		c.faults[of] = f
		c.order = append(c.order, f)
	}
	if len(c.texts) < maxTexts {
		c.texts[as] = f
	}
	return f
}

var wholeUUID = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

// uuidOf returns id if it is a UUID, else "".
func uuidOf(id string) string {
	if wholeUUID.MatchString(id) {
		return id
	}
	return ""
}
