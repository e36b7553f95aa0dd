package dlq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

const (
	// lookTimeout bounds each request for a look, because a command can do without one.
	lookTimeout = 10 * time.Second
	// lookGrace is how long the making of a snapshot may still take after an interrupt.
	lookGrace = 2 * time.Second
	// lookLimit is the longest time for which a look counts as running. A killed command
	// leaves its snapshot, which must not block later looks for ever.
	lookLimit = 30 * time.Minute
	// createdLabel is the label of a snapshot with the time of its creation, in Unix
	// seconds. Google's emulator keeps no labels.
	createdLabel = "created"
	// maxSnapshotID is the longest id of a resource.
	maxSnapshotID = 255
	// snapshotLife is the lifetime of a snapshot of a subscription without messages; the
	// age of the oldest message shortens it.
	snapshotLife = 7 * 24 * time.Hour
	// lifeError is how exactly that lifetime tells the age of the oldest message.
	lifeError = 2 * time.Minute
)

// Look is a Subscription that shows the messages of a queue and leases none of them: a
// second subscription of the same topic, the view, whose state is set to a snapshot of the
// queue. Its leases are leases of the view. One Look of a view can be open at a time.
type Look struct {
	*Client        // of the view
	name    string // of the snapshot
	expires time.Time
	created time.Time

	mu     sync.Mutex // guards oldest
	oldest time.Time  // publish time of the oldest message so far; zero: there was none
}

// LookError says why a queue cannot be looked at, as a clause.
type LookError struct {
	Why string
	Err error // of Pub/Sub; may be nil
}

func (e *LookError) Error() string {
	if e.Err == nil {
		return e.Why
	}
	return e.Why + ": " + e.Err.Error()
}

// Unwrap returns Pub/Sub's error.
func (e *LookError) Unwrap() error { return e.Err }

// OpenLook makes the view show the queue; both are subscriptions, given by their full
// names. The error is a *LookError; then nothing has changed. The caller must call
// CloseLook.
func OpenLook(ctx context.Context, queue, view string, opts ...option.ClientOption) (*Look, error) {
	client, err := NewClient(ctx, view, opts...)
	if err != nil {
		return nil, &LookError{"Pub/Sub cannot be reached", err}
	}
	client.client.CallOptions.CreateSnapshot = nil
	client.client.CallOptions.GetSnapshot = nil
	client.client.CallOptions.Seek = nil
	client.client.CallOptions.DeleteSnapshot = nil
	l := &Look{Client: client, name: snapshotName(view)}
	if err := l.open(ctx, queue, view); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return l, nil
}

// snapshotName is the same for every look through a view, so that Pub/Sub refuses the
// second.
func snapshotName(view string) string {
	const suffix = "-look"
	project, id, _ := strings.Cut(view, "/subscriptions/")
	return project + "/snapshots/" + id[:min(len(id), maxSnapshotID-len(suffix))] + suffix
}

func (l *Look) open(ctx context.Context, queue, view string) error {
	snapshot, err := l.create(ctx, queue)
	if status.Code(err) == codes.AlreadyExists && l.removeStale(ctx) {
		snapshot, err = l.create(ctx, queue)
	}
	if err != nil {
		return notCreated(err)
	}
	l.expires, l.created = snapshot.GetExpireTime().AsTime(), time.Now()
	rpc, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	to := &pubsubpb.SeekRequest{Subscription: view, Target: &pubsubpb.SeekRequest_Snapshot{Snapshot: l.name}}
	if _, err := l.client.Seek(rpc, to); err != nil {
		return errors.Join(notSought(err), l.removeSnapshot())
	}
	return nil
}

// create makes the snapshot. The request may outlive an interrupt by lookGrace, because
// Pub/Sub might serve a cancelled request and leave a snapshot that nobody deletes.
func (l *Look) create(ctx context.Context, queue string) (*pubsubpb.Snapshot, error) {
	work, stop := retry.Outlive(ctx, lookGrace)
	defer stop()
	rpc, cancel := context.WithTimeout(work, lookTimeout)
	defer cancel()
	return l.client.CreateSnapshot(rpc, &pubsubpb.CreateSnapshotRequest{
		Name: l.name, Subscription: queue, Labels: map[string]string{createdLabel: strconv.FormatInt(time.Now().Unix(), 10)},
	})
}

// removeStale deletes the snapshot of an earlier look if that look has ended, and reports
// whether the snapshot is gone. A snapshot without a creation time counts as that of a
// running look.
func (l *Look) removeStale(ctx context.Context) bool {
	rpc, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	snapshot, err := l.client.GetSnapshot(rpc, &pubsubpb.GetSnapshotRequest{Snapshot: l.name})
	if status.Code(err) == codes.NotFound { // the other look has ended meanwhile
		return true
	}
	if err != nil || !expired(snapshot.GetLabels(), time.Now()) {
		return false
	}
	err = l.client.DeleteSnapshot(rpc, &pubsubpb.DeleteSnapshotRequest{Snapshot: l.name})
	return err == nil || status.Code(err) == codes.NotFound
}

// expired reports whether a look that began at the label's time must have ended. Clocks
// differ, so that a time far in the future counts like one far in the past.
func expired(labels map[string]string, now time.Time) bool {
	created, err := strconv.ParseInt(labels[createdLabel], 10, 64)
	return err == nil && now.Sub(time.Unix(created, 0)).Abs() > lookLimit
}

// Acknowledge fails: a look removes nothing.
func (l *Look) Acknowledge(context.Context, []string) error {
	return status.Error(codes.FailedPrecondition, "a look at the dead-letter queue removes nothing")
}

// Pull asks the view for messages.
func (l *Look) Pull(ctx context.Context, limit int, immediately bool) ([]*pubsubpb.ReceivedMessage, error) {
	received, err := l.Client.Pull(ctx, limit, immediately)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range received {
		if at := r.GetMessage().GetPublishTime().AsTime(); l.oldest.IsZero() || at.Before(l.oldest) {
			l.oldest = at
		}
	}
	return received, err
}

// Doubt returns a clause that says why the queue may have messages that the view has not
// shown; it is empty if there is no such reason. Call it after a complete reading. The
// snapshot's lifetime gives the age of the queue's oldest message, and a view that was
// created after that message does not have it.
func (l *Look) Doubt() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := l.oldest
	if oldest.IsZero() {
		oldest = l.created
	}
	if l.expires.Add(-snapshotLife).Before(oldest.Add(-lifeError)) {
		return "the view has not shown the oldest messages; it was created later than they were, or they are not yet available"
	}
	return ""
}

// CloseLook deletes the snapshot and closes the connection. It ignores the command's
// context, so that an interrupted command leaves no snapshot.
func (l *Look) CloseLook() error { return errors.Join(l.removeSnapshot(), l.Close()) }

func (l *Look) removeSnapshot() error {
	if time.Since(l.created) > lookLimit {
		return nil // another command may have made a snapshot of the same name by now
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	err := l.client.DeleteSnapshot(ctx, &pubsubpb.DeleteSnapshotRequest{Snapshot: l.name})
	if err == nil || status.Code(err) == codes.NotFound {
		return nil
	}
	return fmt.Errorf("the snapshot %s was not deleted; a later command deletes it: %w", l.name, err)
}

// notCreated explains why there is no snapshot.
func notCreated(err error) *LookError {
	switch status.Code(err) {
	case codes.AlreadyExists:
		return &LookError{Why: "another process looks at it just now, or a command was killed in the last 30 minutes"}
	case codes.FailedPrecondition:
		return &LookError{Why: "its oldest message is seven days old, or almost, and Pub/Sub makes no snapshot then"}
	case codes.PermissionDenied:
		return &LookError{"you may not make snapshots (pubsub.snapshots.create in the project of the view, and roles/pubsub.subscriber on DLQ_SUBSCRIPTION)", err}
	}
	return &LookError{"Pub/Sub made no snapshot", err}
}

// notSought explains why the view does not show the snapshot.
func notSought(err error) *LookError {
	switch status.Code(err) {
	case codes.NotFound:
		return &LookError{"DLQ_VIEW_SUBSCRIPTION does not exist", err}
	case codes.FailedPrecondition, codes.InvalidArgument:
		return &LookError{"DLQ_VIEW_SUBSCRIPTION is no subscription of the dead-letter topic", err}
	case codes.PermissionDenied:
		return &LookError{"you may not use snapshots (pubsub.snapshots.seek in the project of the view, and roles/pubsub.subscriber on DLQ_VIEW_SUBSCRIPTION)", err}
	}
	return &LookError{"the view could not be set to the snapshot", err}
}
