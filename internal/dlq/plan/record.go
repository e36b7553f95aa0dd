package plan

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
)

// Kind is what a record of the journal says.
type Kind string

// The kinds of records.
const (
	// Begun is the first record of each run.
	Begun Kind = "begun"
	// Published: the topic has confirmed the messages. It is written before they are
	// acknowledged in the queue.
	Published Kind = "published"
	// Purged: the backup has the messages. It is written before they are acknowledged.
	Purged Kind = "purged"
	// Removed: the queue has confirmed that it forgot messages that were published or
	// purged, or they are known to be gone.
	Removed Kind = "removed"
	// Left: the messages stay in the queue, for the reason in Why. A later run tries
	// them again.
	Left Kind = "left"
	// Canaries: the messages were published ahead of the others.
	Canaries Kind = "canaries"
	// CanariesPassed: the others may follow.
	CanariesPassed Kind = "canaries_passed"
	// CameBack: the events were seen in the queue, rejected again. IDs are their origins.
	CameBack Kind = "came_back"
	// Receipted: the worker has said what became of the events.
	Receipted Kind = "receipts"
	// Ended is the last record of a run that was not killed; Why says how it ended.
	Ended Kind = "ended"
)

// Record is a line of the journal.
type Record struct {
	At   time.Time `json:"at"`
	Kind Kind      `json:"kind"`
	// Plan is the plan's id and Checksum its checksum, of a begun run; By is the account.
	Plan     string `json:"plan,omitempty"`
	Checksum string `json:"checksum,omitempty"`
	By       string `json:"by,omitempty"`
	// IDs are ids of messages in the queue.
	IDs []string `json:"ids,omitempty"`
	Why string   `json:"why,omitempty"`
	// Receipts are those of a Receipted record.
	Receipts []Receipt `json:"receipts,omitempty"`
}

// Receipt is the worker's verdict on a published message.
type Receipt struct {
	// Message is the id of the receipt itself: Pub/Sub may deliver it twice.
	Message string `json:"message"`
	// Event is the event's id; empty if the receipt does not say it.
	Event string `json:"event,omitempty"`
	// Origin is the id of the message that was first published with the event.
	Origin  string    `json:"origin"`
	Verdict Verdict   `json:"verdict"`
	Reason  string    `json:"reason,omitempty"`
	At      time.Time `json:"at"`
}

// Verdict is what became of an event: see package receipts.
type Verdict string

// The verdicts that a plan counts; it counts any other as none.
const (
	Recorded  Verdict = "recorded"
	Duplicate Verdict = "duplicate"
	Rejected  Verdict = "rejected"
)

// maxRecord bounds a line of the journal, in bytes.
const maxRecord = 16 << 20

// appendRecord appends the record as a line.
func appendRecord(b []byte, r Record) ([]byte, error) {
	text, err := json.Marshal(r)
	return append(append(b, text...), '\n'), err
}

// readRecords calls add for each complete line, and returns how many bytes those lines
// have. A crash has cut the text after the last line break, which Append never confirmed.
func readRecords(r io.Reader, add func(Record) error) (complete int64, err error) {
	in := bufio.NewReaderSize(r, 1<<20)
	for n := 1; ; n++ {
		line, err := readLine(in)
		switch {
		case errors.Is(err, io.EOF):
			return complete, nil
		case err != nil:
			return complete, fmt.Errorf("line %d of the journal: %w", n, err)
		}
		var record Record
		if err := jsonv2.Unmarshal(line, &record); err != nil {
			return complete, fmt.Errorf("line %d of the journal is no record: %s", n, clipped(err.Error()))
		}
		if err := add(record); err != nil {
			return complete, fmt.Errorf("line %d of the journal: %w", n, err)
		}
		complete += int64(len(line))
	}
}

// readLine returns a line with its line break, or io.EOF if no complete line is left.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(line) > maxRecord:
			return nil, fmt.Errorf("it has more than %d bytes", maxRecord)
		}
	}
}
