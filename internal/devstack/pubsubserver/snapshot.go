package pubsubserver

import (
	"context"
	"maps"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The lifetime of a snapshot, by the reference of CreateSnapshot and Snapshot.expire_time:
// seven days less the age of the oldest unacknowledged message, and no snapshot that
// would expire within an hour.
const (
	snapshotLifetime    = 7 * 24 * time.Hour
	minSnapshotLifetime = time.Hour
)

// snapshots are the snapshots of a Server.
type snapshots struct {
	sequence *sequence // of the server's messages

	mu  sync.Mutex // guards what follows
	all map[string]*snapshot
	age time.Duration // by which messages count as older than they are
}

func newSnapshots(s *sequence) *snapshots {
	return &snapshots{sequence: s, all: map[string]*snapshot{}}
}

// snapshot is the acknowledgement state of a subscription at one moment. It is never changed.
type snapshot struct {
	proto   *pubsubpb.Snapshot
	unacked []message // in the order of publishing
	last    uint64    // later messages count as unacknowledged
}

// AgeMessages makes all messages count as older by so much when a snapshot is made.
func (s *Server) AgeMessages(by time.Duration) { s.snapshots.ageMessages(by) }

func (s *snapshots) ageMessages(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.age = by
}

// Snapshots returns all snapshots, by name.
func (s *Server) Snapshots() map[string]*pubsubpb.Snapshot { return s.snapshots.list() }

func (s *snapshots) list() map[string]*pubsubpb.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]*pubsubpb.Snapshot{}
	for name, snap := range s.all {
		all[name] = proto.CloneOf(snap.proto)
	}
	return all
}

// create makes a snapshot of a subscription.
func (s *snapshots) create(name string, sub *subscription, labels map[string]string) (*snapshot, error) {
	topic := sub.proto.Load().GetTopic()
	if topic == deletedTopic {
		return nil, status.Errorf(codes.FailedPrecondition, "The topic of the subscription was deleted (resource=%s).", sub.name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.find(name); err == nil {
		return nil, status.Errorf(codes.AlreadyExists, "Resource already exists in the project (resource=%s).", name)
	}
	s.sequence.mu.Lock()
	snap := &snapshot{unacked: sub.queue.snapshot(), last: s.sequence.last.Load()}
	s.sequence.mu.Unlock()
	expires := time.Now().Add(snapshotLifetime)
	if len(snap.unacked) > 0 {
		expires = snap.unacked[0].decode().GetPublishTime().AsTime().Add(snapshotLifetime - s.age)
	}
	if time.Until(expires) < minSnapshotLifetime {
		return nil, status.Error(codes.FailedPrecondition, "The subscription's backlog is too old: the snapshot would expire in less than 1 hour.")
	}
	snap.proto = &pubsubpb.Snapshot{Name: name, Topic: topic, ExpireTime: timestamppb.New(expires), Labels: maps.Clone(labels)}
	s.all[name] = snap
	return snap, nil
}

// get returns a snapshot that has not expired.
func (s *snapshots) get(name string) (*snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(name)
}

func (s *snapshots) remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.find(name); err != nil {
		return err
	}
	delete(s.all, name)
	return nil
}

// find does what get does. The caller holds the lock.
func (s *snapshots) find(name string) (*snapshot, error) {
	snap, ok := s.all[name]
	if ok && time.Now().After(snap.proto.GetExpireTime().AsTime()) {
		delete(s.all, name)
		ok = false
	}
	if !ok {
		return nil, notFound(name)
	}
	return snap, nil
}

func (s *subscriber) CreateSnapshot(_ context.Context, req *pubsubpb.CreateSnapshotRequest) (*pubsubpb.Snapshot, error) {
	if err := checkName(req.GetName(), "snapshots"); err != nil {
		return nil, err
	}
	sub, err := s.registry.subscription(req.GetSubscription())
	if err != nil {
		return nil, err
	}
	snap, err := s.snapshots.create(req.GetName(), sub, req.GetLabels())
	if err != nil {
		return nil, err
	}
	return snap.proto, nil
}

func (s *subscriber) GetSnapshot(_ context.Context, req *pubsubpb.GetSnapshotRequest) (*pubsubpb.Snapshot, error) {
	snap, err := s.snapshots.get(req.GetSnapshot())
	if err != nil {
		return nil, err
	}
	return snap.proto, nil
}

func (s *subscriber) DeleteSnapshot(_ context.Context, req *pubsubpb.DeleteSnapshotRequest) (*emptypb.Empty, error) {
	if err := s.snapshots.remove(req.GetSnapshot()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (s *subscriber) Seek(_ context.Context, req *pubsubpb.SeekRequest) (*pubsubpb.SeekResponse, error) {
	sub, err := s.registry.subscription(req.GetSubscription())
	if err != nil {
		return nil, err
	}
	switch {
	case req.GetTime() != nil:
		return nil, status.Error(codes.Unimplemented, "seek to a time is not supported")
	case req.GetSnapshot() == "":
		return nil, status.Error(codes.InvalidArgument, "One of the fields time or snapshot must be set in the SeekRequest.")
	}
	snap, err := s.snapshots.get(req.GetSnapshot())
	if err != nil {
		return nil, err
	}
	if topic := sub.proto.Load().GetTopic(); topic != snap.proto.GetTopic() {
		return nil, status.Errorf(codes.FailedPrecondition, "The subscription's topic %s is different from that of the snapshot %s.", topic, snap.proto.GetTopic())
	}
	sub.queue.seek(snap, sub.born)
	return &pubsubpb.SeekResponse{}, nil
}

// seek makes the state of a subscription that of a snapshot. Messages up to the number
// born are not brought back. A lease runs on, unless its message is acknowledged by that.
func (q *queue) seek(snap *snapshot, born uint64) {
	missing := make(map[uint64]struct{}, len(snap.unacked))
	for _, m := range snap.unacked {
		missing[m.number] = struct{}{}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.slots.used {
		s := q.slots.at(i)
		if !s.unacked() {
			continue
		}
		if _, unacked := missing[s.message.number]; unacked || s.message.number > snap.last {
			delete(missing, s.message.number)
			continue
		}
		if s.state == slotLeased {
			q.ackLeased(i)
			continue
		}
		q.ackReady(i)
	}
	for _, m := range snap.unacked {
		if _, ok := missing[m.number]; ok && m.number > born {
			q.backlog.addAgain(q.slots.add(m, 0))
		}
	}
	q.waiters.wakeAll()
}
