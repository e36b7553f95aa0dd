// Package fault gives an id to each fault for which events are dead-lettered, so that the
// worker's log, `worker dlq` and people name a fault alike. A fault is a reason, a service
// and a normalized detail. All its texts are safe to show.
package fault

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"unicode/utf8"
)

// MaxDetail is the length to which a detail is cut before it is normalized, in bytes. It
// is the limit of a Pub/Sub attribute, to which the worker cuts the details that it writes.
const MaxDetail = 1024

// Fault is a cause of rejections that many events may share.
type Fault struct {
	// Reason is a reason such as invalid_event, and Service the service_id that the
	// message names; empty if it names none. Either is Hidden unless it is a word.
	Reason, Service string
	// Detail is normalized: see Normalize.
	Detail string
}

// Of returns the fault of an event from the reason, the service id and the detail as
// they are in its dead-lettered message.
func Of(reason, service, detail string) Fault {
	return Fault{Word(reason), Word(service), Normalize(SafeDetail(cut(detail)))}
}

// idPattern matches the ids of faults.
var idPattern = regexp.MustCompile(`^F-[0-9a-f]{6}$`)

// ID returns the fault's id: F- and the first six hexadecimal digits of a SHA-256. It
// is the same in every version that normalizes details alike. Two faults have the same
// id by chance with a probability of 1 in 16,777,216.
func (f Fault) ID() string {
	sum := sha256.Sum256([]byte(f.Reason + "\n" + f.Service + "\n" + f.Detail))
	return "F-" + hex.EncodeToString(sum[:3])
}

// IsID reports whether a text has the form of a fault's id.
func IsID(s string) bool { return idPattern.MatchString(s) }

// cut returns valid UTF-8 of at most MaxDetail bytes.
func cut(detail string) string {
	detail = strings.ToValidUTF8(detail, "\uFFFD")
	if len(detail) <= MaxDetail {
		return detail
	}
	end := MaxDetail
	for !utf8.RuneStart(detail[end]) {
		end--
	}
	return detail[:end]
}
