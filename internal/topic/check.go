package topic

import (
	"errors"
	"fmt"
	"strings"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// Pub/Sub's limits of one message.
const (
	MaxMessageBytes = 10_000_000
	MaxAttributes   = 100
	MaxKeyBytes     = 256
	MaxValueBytes   = 1024
	maxOrderingKey  = 1024
)

// Check returns the first reason for which Pub/Sub would refuse a message, or nil.
// Emulators do not check most of this.
func Check(m *pubsubpb.PubsubMessage) error {
	attributes := m.GetAttributes()
	if len(m.GetData()) == 0 && len(attributes) == 0 {
		return errors.New("the message has neither data nor attributes: Pub/Sub refuses it")
	}
	if len(attributes) > MaxAttributes {
		return fmt.Errorf("the message has %d attributes: Pub/Sub takes at most %d", len(attributes), MaxAttributes)
	}
	for key, value := range attributes {
		switch {
		case key == "":
			return errors.New("an attribute has an empty name: Pub/Sub refuses it")
		case len(key) > MaxKeyBytes:
			return fmt.Errorf("attribute %.40q…: Pub/Sub takes names of at most %d bytes, got %d", key, MaxKeyBytes, len(key))
		case strings.HasPrefix(key, "goog") && !strings.HasPrefix(key, "googclient_"):
			return fmt.Errorf("attribute %.40q: Pub/Sub keeps names that begin with goog for itself", key)
		case len(value) > MaxValueBytes:
			return fmt.Errorf("attribute %.40q: Pub/Sub takes values of at most %d bytes, got %d", key, MaxValueBytes, len(value))
		}
	}
	if n := len(m.GetOrderingKey()); n > maxOrderingKey {
		return fmt.Errorf("the ordering key has %d bytes: Pub/Sub takes at most %d", n, maxOrderingKey)
	}
	if n := Size(m); n > MaxMessageBytes {
		return fmt.Errorf("the message has %d bytes: Pub/Sub takes at most %d", n, MaxMessageBytes)
	}
	return nil
}
