package pubsubserver

import (
	"fmt"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/proto"
)

// message is what a topic hands to its subscriptions; it is never changed.
type message struct {
	encoded []byte // a PubsubMessage with its id and publish time
	number  uint64 // the id; increases with every publish
}

// decode undoes the encoding of publish, which cannot fail.
func (m message) decode() *pubsubpb.PubsubMessage {
	decoded := &pubsubpb.PubsubMessage{}
	if err := proto.Unmarshal(m.encoded, decoded); err != nil {
		panic(fmt.Sprintf("decode an own message: %v", err))
	}
	return decoded
}
