package preflight

import (
	"context"
	"errors"
	"slices"
	"strings"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/provision"
)

const (
	runSetup = "run worker setup, or apply the Terraform module"
	logIn    = "log in (gcloud auth application-default login), or run it with the service account"
)

// PubSub checks everything that the worker needs of Pub/Sub. It waits for answers until
// ctx ends.
func PubSub(ctx context.Context, needs provision.Needs, opts ...option.ClientOption) (findings []Finding) {
	const all = "Pub/Sub"
	admin, err := provision.Connect(ctx, opts...)
	if err != nil {
		return []Finding{failure(all, "", oneLine(err), "nothing can be received", logIn)}
	}
	defer func() {
		if err := admin.Close(); err != nil {
			findings = append(findings, warning(all, "", "the connection did not close: "+oneLine(err), "", ""))
		}
	}()
	x := examiner{admin: admin, needs: needs, opts: opts}
	sub, err := admin.Subscription(ctx, needs.Subscription)
	if unreachable(err) {
		return []Finding{
			failure(all, "", "does not answer: "+oneLine(err), "nothing can be received", "look at the network, the project's name, PUBSUB_ENDPOINT and PUBSUB_EMULATOR_HOST; then run this again"),
			skipped("topics, subscriptions and permissions", "", "Pub/Sub does not answer"),
		}
	}
	receiving := x.receiving(ctx, err)
	x.subscription(ctx, sub, err)
	at := len(x.findings)
	x.topic(ctx)
	x.deadLetterTopic(ctx)
	x.view(ctx)
	x.receipts(ctx)
	return slices.Insert(x.findings, at, <-receiving)
}

// examiner collects findings about Pub/Sub.
type examiner struct {
	admin    *provision.Admin
	needs    provision.Needs
	opts     []option.ClientOption
	findings []Finding
}

// receiving checks the subscription with a stream, concurrently with other checks, and
// sends its finding. err is the error of reading the subscription.
func (x *examiner) receiving(ctx context.Context, err error) <-chan Finding {
	found := make(chan Finding, 1)
	if status.Code(err) == codes.NotFound {
		found <- skipped(streamCheck, x.needs.Subscription, "there is no subscription")
		return found
	}
	go func() { found <- stream(ctx, x.needs.Subscription, x.needs.Emulator, x.opts...) }()
	return found
}

func (x *examiner) add(f ...Finding) { x.findings = append(x.findings, f...) }

func (x *examiner) subscription(ctx context.Context, sub *pubsubpb.Subscription, err error) {
	const check = "subscription"
	name := x.needs.Subscription
	there := x.exists(check, name, "PUBSUB_SUBSCRIPTION", "worker run does not start", err)
	if err == nil {
		x.settings(check, sub, provision.SubscriptionSettings())
	}
	const permission = "permission to receive"
	if !there {
		x.add(skipped(permission, name, "there is no subscription"))
		return
	}
	held, err := x.admin.HoldsOnSubscription(ctx, name, provision.ConsumePermission)
	x.permission(permission, name, provision.ConsumePermission, "roles/pubsub.subscriber", held, err)
}

func (x *examiner) topic(ctx context.Context) {
	const check = "topic"
	name := x.needs.Topic
	_, err := x.admin.Topic(ctx, name)
	switch {
	case status.Code(err) == codes.PermissionDenied:
		x.add(skipped(check, name, "may not be read by who runs this; worker run does not need it"))
	case status.Code(err) == codes.NotFound && !x.needs.TopicGiven:
		x.add(warning(check, name, "does not exist, and is only the default", "worker publish and dlq replay do not work", "set PUBSUB_TOPIC"))
	default:
		x.exists(check, name, "PUBSUB_TOPIC", "services, worker publish and dlq replay cannot publish; worker run does not start", err)
	}
}

func (x *examiner) deadLetterTopic(ctx context.Context) {
	const (
		check      = "dead-letter topic"
		permission = "permission to dead-letter"
		readers    = "dead-letter topic's subscriptions"
		vanish     = "dead-lettered messages are lost as soon as they are written"
	)
	name := x.needs.DeadLetterTopic
	_, err := x.admin.Topic(ctx, name)
	there := x.exists(check, name, "DLQ_TOPIC", "worker run does not start", err)
	if !there {
		x.add(skipped(permission, name, "there is no topic"), skipped(readers, name, "there is no topic"))
	} else {
		held, err := x.admin.HoldsOnTopic(ctx, name, provision.PublishPermission)
		x.permission(permission, name, provision.PublishPermission, "roles/pubsub.publisher", held, err)
		has, err := x.admin.HasSubscription(ctx, name)
		switch {
		case err == nil && has:
			x.add(ok(readers, name, "there is at least one"))
		case err == nil:
			x.add(failure(readers, name, "there is none", vanish, runSetup))
		default:
			x.add(unasked(readers, name, err))
		}
	}

	const queue = "dead-letter subscription"
	name = x.needs.DeadLetterSubscription
	sub, err := x.admin.Subscription(ctx, name)
	x.exists(queue, name, "DLQ_SUBSCRIPTION", "the dlq commands have nothing to read, and without another subscription "+vanish, err)
	if err == nil {
		x.settings(queue, sub, provision.DeadLetterSettings())
	}
}

// view checks the view of the dead-letter queue. Without it the commands lease what they
// read, so that nothing about it is a failure.
func (x *examiner) view(ctx context.Context) {
	const check = "dead-letter view"
	name := x.needs.DeadLetterView
	if name == "" {
		return
	}
	sub, err := x.admin.Subscription(ctx, name)
	x.optional(check, name, "DLQ_VIEW_SUBSCRIPTION", "the dlq commands lease what they read", err)
	if err == nil {
		x.settings(check, sub, provision.ViewSettings())
	}
}

// receipts checks topic and subscription of receipts. Events do not depend on them, so that
// nothing about them is a failure.
func (x *examiner) receipts(ctx context.Context) {
	const (
		check      = "receipts topic"
		readers    = "receipts topic's subscriptions"
		permission = "permission to publish receipts"
		unknown    = "dlq status and trace do not learn what became of replayed events"
	)
	if name := x.needs.ReceiptsTopic; name != "" {
		_, err := x.admin.Topic(ctx, name)
		if x.optional(check, name, "RECEIPTS_TOPIC", unknown, err) {
			held, err := x.admin.HoldsOnTopic(ctx, name, provision.PublishPermission)
			switch {
			case err == nil && !held:
				x.add(warning(permission, name, "lacks "+provision.PublishPermission, unknown, "grant roles/pubsub.publisher on it to the worker's service account"))
			case err == nil:
				x.add(ok(permission, name, "holds "+provision.PublishPermission))
			default:
				x.add(unasked(permission, name, err))
			}
			has, err := x.admin.HasSubscription(ctx, name)
			switch {
			case err == nil && has:
				x.add(ok(readers, name, "there is at least one"))
			case err == nil:
				x.add(warning(readers, name, "there is none", "Pub/Sub drops the receipts: "+unknown, "set RECEIPTS_SUBSCRIPTION, and "+runSetup))
			default:
				x.add(unasked(readers, name, err))
			}
		}
	}
	const subscription = "receipts subscription"
	name := x.needs.ReceiptsSubscription
	if name == "" {
		return
	}
	sub, err := x.admin.Subscription(ctx, name)
	x.optional(subscription, name, "RECEIPTS_SUBSCRIPTION", unknown, err)
	if err == nil && x.needs.ReceiptsTopic != "" {
		x.settings(subscription, sub, provision.ReceiptSettings())
	}
}

// optional is exists for a resource on which no event depends.
func (x *examiner) optional(check, name, variable, consequence string, err error) bool {
	there := x.exists(check, name, variable, consequence, err)
	if last := &x.findings[len(x.findings)-1]; last.Status == provision.Failure {
		last.Status = provision.Warning
	}
	return there
}

// exists adds a finding about a resource, and reports whether it may exist.
func (x *examiner) exists(check, name, variable, consequence string, err error) bool {
	switch status.Code(err) {
	case codes.OK:
		x.add(ok(check, name, "exists"))
	case codes.NotFound:
		x.add(failure(check, name, "does not exist", consequence, runSetup+"; or set "+variable))
		return false
	case codes.PermissionDenied:
		x.add(warning(check, name, "may not be read by who runs this", "whether it exists and how it is set is not known",
			"run the check with roles/pubsub.viewer; the worker itself does not need that"))
	case codes.Unauthenticated:
		x.add(failure(check, name, oneLine(err), consequence, logIn))
	default:
		x.add(failure(check, name, "cannot be asked: "+oneLine(err), consequence, "check "+variable+", then run this again"))
	}
	return true
}

func (x *examiner) settings(check string, sub *pubsubpb.Subscription, settings []provision.Setting) {
	for _, s := range settings {
		j := s.Judge(sub, x.needs)
		f := Finding{Check: check + " " + s.Name, Status: j.Verdict, Resource: sub.GetName(), Detail: j.Is, Consequence: j.Consequence}
		if j.Verdict == provision.Warning || j.Verdict == provision.Failure {
			f.Do = s.WhatToDo(sub, runSetup)
		}
		x.add(f)
	}
}

func (x *examiner) permission(check, name, permission, role string, held bool, err error) {
	switch {
	case err == nil && held:
		x.add(ok(check, name, "holds "+permission))
	case err == nil:
		x.add(failure(check, name, "lacks "+permission, "worker run does not start", "grant "+role+" on it to the worker's service account"))
	default:
		x.add(unasked(check, name, err))
	}
}

// unasked is the finding when a request has no answer.
func unasked(check, name string, err error) Finding {
	switch status.Code(err) {
	case codes.Unimplemented:
		return skipped(check, name, "the emulator does not know the question")
	case codes.PermissionDenied:
		return skipped(check, name, "may not be asked by who runs this")
	}
	return failure(check, name, "cannot be asked: "+oneLine(err), "it is not known", "run this again")
}

func unreachable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	case codes.Unknown:
		return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	}
	return false
}

// oneLine formats an error without line breaks.
func oneLine(err error) string {
	if s, is := status.FromError(err); is && s.Code() != codes.OK {
		return s.Code().String() + ": " + strings.Join(strings.Fields(s.Message()), " ")
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
