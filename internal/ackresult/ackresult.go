// Package ackresult reads Pub/Sub's results per ack id from the error of an Acknowledge
// or ModifyAckDeadline request that failed in part.
package ackresult

import (
	"strings"

	"github.com/googleapis/gax-go/v2/apierror"
)

// Result is the result for one ack id of a request that failed in part.
type Result int

const (
	// Permanent means that the ack id is no longer valid: its lease has expired,
	// or a newer delivery has replaced it. Another try cannot help.
	Permanent Result = iota + 1
	// Transient means that another try may help.
	Transient
)

// The values of ErrorInfo's metadata begin with one of these. The official
// clients look at the same prefixes (cloud-go's pubsub/iterator.go).
const (
	permanentPrefix = "PERMANENT_FAILURE"
	transientPrefix = "TRANSIENT_FAILURE"
)

// Of returns the results that err holds, by ack id. ok is false if it holds none:
// then the request failed as a whole, or err is nil.
//
// Only exactly-once subscriptions answer per id. The results are in the metadata
// of the status' ErrorInfo, among entries of other kinds, which Of leaves out. The
// status code says nothing more: FailedPrecondition and InvalidArgument have
// both been reported.
func Of(err error) (results map[string]Result, ok bool) {
	parsed, ok := apierror.FromError(err)
	if !ok {
		return nil, false
	}
	for id, value := range parsed.Metadata() {
		var result Result
		switch {
		case strings.HasPrefix(value, permanentPrefix):
			result = Permanent
		case strings.HasPrefix(value, transientPrefix):
			result = Transient
		default:
			continue
		}
		if results == nil {
			results = map[string]Result{}
		}
		results[id] = result
	}
	return results, results != nil
}

// Split divides the ids of a failed request into those that are worth another try, in
// the same order, and those that are lost. ok is false if err holds no results;
// then both are nil.
//
// An id that the answer does not name is tried again. The official clients
// disagree about it (Java's takes it for done, Go's for failed), and to
// acknowledge or extend an id twice does no harm.
func Split(err error, ids []string) (retry, lost []string, ok bool) {
	results, ok := Of(err)
	if !ok {
		return nil, nil, false
	}
	for _, id := range ids {
		if results[id] == Permanent {
			lost = append(lost, id)
		} else {
			retry = append(retry, id)
		}
	}
	return retry, lost, true
}
