package recorder_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sourcegraph/telemetry-relay/recorder"
)

// example is a topic in a small Pub/Sub in this process.
type example struct {
	name    string
	options []option.ClientOption
	server  *pstest.Server
}

// message is the part of an event that the examples show.
type message struct {
	Feature, Action string
	Metadata        map[string]float64
	User            recorder.User
	Client          recorder.Client
}

func newExample() example {
	server := pstest.NewServer()
	e := example{
		name:   "projects/example/topics/telemetry-events",
		server: server,
		options: []option.ClientOption{
			option.WithEndpoint(server.Addr), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		},
	}
	if _, err := server.GServer.CreateTopic(context.Background(), &pubsubpb.Topic{Name: e.name}); err != nil {
		panic(err)
	}
	return e
}

// close stops the server and prints the published events.
func (e example) close(show func(attributes map[string]string, m message)) {
	for _, published := range e.server.Messages() {
		var m message
		if err := json.Unmarshal(published.Data, &m); err != nil {
			panic(err)
		}
		show(published.Attributes, m)
	}
	if err := e.server.Close(); err != nil {
		panic(err)
	}
}

func exampleTopic() (e example, show func()) {
	e = newExample()
	return e, func() {
		e.close(func(a map[string]string, m message) {
			fmt.Printf("service_id=%s service_environment=%s service_version=%s: %s/%s %v\n",
				a["service_id"], a["service_environment"], a["service_version"], m.Feature, m.Action, m.Metadata)
		})
	}
}

// exampleRecorder returns a recorder, and a function that closes it and prints the events.
func exampleRecorder() (rec *recorder.Recorder, done func()) {
	e := newExample()
	rec, err := recorder.New(context.Background(), recorder.Config{
		Service: recorder.Service{ID: "cody-gateway"}, Topic: e.name, ClientOptions: e.options, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	return rec, func() {
		if err := rec.Close(context.Background()); err != nil {
			panic(err)
		}
		e.close(func(_ map[string]string, m message) {
			fmt.Printf("%s/%s user=%s", m.Feature, m.Action, m.User.SAMSExternalID)
			if m.Client.Name != "" {
				fmt.Printf(" client=%s %s", m.Client.Name, m.Client.Version)
			}
			fmt.Println()
		})
	}
}
