package pubsubserver

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The reasons for which single ack ids fail, as the official client knows them
// (pubsub/v2, iterator.go). Every reason that begins with TRANSIENT_FAILURE_ means that
// the id may be sent again.
const (
	InvalidAckID     = "PERMANENT_FAILURE_INVALID_ACK_ID"
	TransientFailure = "TRANSIENT_FAILURE_UNORDERED_ACK_ID"
)

// acknowledge acknowledges ids, except those in failures.
func (sub *subscription) acknowledge(ids []string, failures map[string]string) error {
	return settle(ids, failures, func(ids []string) (invalid []string, err error) {
		if sub.exactlyOnce() {
			return sub.queue.ackExactly(ids), nil
		}
		if !sub.queue.ack(ids) {
			return nil, errAckID
		}
		return nil, nil
	})
}

// modifyDeadline gives the leases of ids, except those in failures, a new length.
func (sub *subscription) modifyDeadline(ids []string, length int, failures map[string]string) error {
	return settle(ids, failures, func(ids []string) (invalid []string, err error) {
		return sub.modify(ids, func(int) int { return length })
	})
}

// settle does the work for the ids that are not to fail and reports those that
// failed, if any.
func settle(ids []string, failures map[string]string, do func(ids []string) (invalid []string, err error)) error {
	failed := map[string]string{}
	if len(failures) > 0 {
		good := make([]string, 0, len(ids))
		for _, id := range ids {
			if reason, fails := failures[id]; fails {
				failed[id] = reason
			} else {
				good = append(good, id)
			}
		}
		ids = good
	}
	invalid, err := do(ids)
	if err != nil {
		return err
	}
	for _, id := range invalid {
		failed[id] = InvalidAckID
	}
	return idError(failed)
}

// idError is the answer of an exactly-once subscription to a request of which
// some ids failed: the others were served. Code, text and reason are those of
// google-cloud-ruby#18236 and nodejs-pubsub#1951.
func idError(failed map[string]string) error {
	if len(failed) == 0 {
		return nil
	}
	st, err := status.New(codes.InvalidArgument,
		"Some acknowledgement ids in the request were invalid. This could be because the acknowledgement ids have expired or the acknowledgement ids were malformed.",
	).WithDetails(&errdetails.ErrorInfo{
		Reason: "EXACTLY_ONCE_ACKID_FAILURE", Domain: "pubsub.googleapis.com", Metadata: failed,
	})
	if err != nil { // only with the code OK
		return status.Error(codes.Internal, err.Error())
	}
	return st.Err()
}
