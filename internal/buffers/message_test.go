package buffers

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// TestMessage puts messages of fields of many sizes together and compares them
// with the plain way.
func TestMessage(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var want []byte
		m := NewMessage(rng.IntN(200_000)) // which need not be true
		for range rng.IntN(300) {
			value := bytes.Repeat([]byte{byte(rng.IntN(256))}, []int{0, 1, 36, 300, MaxCopied, MaxCopied + 1, chunkSize - 3, 3 * chunkSize}[rng.IntN(8)])
			number := protowire.Number(1 + rng.IntN(20))
			want = protowire.AppendBytes(protowire.AppendTag(want, number, protowire.BytesType), value)
			switch rng.IntN(3) {
			case 0:
				m.String(number, string(value))
			default:
				m.Bytes(number, value)
			}
		}
		parts := m.Finish()
		if !bytes.Equal(parts.Materialize(), want) {
			t.Errorf("seed %d: got %d bytes, want %d, or other ones", seed, parts.Len(), len(want))
		}
		for _, p := range parts {
			if p.Len() == 0 {
				t.Errorf("seed %d: an empty part", seed)
			}
		}
		parts.Free()
	}
}

// TestBytesCopied guards what is copied: small fields once, and large ones not at all.
func TestBytesCopied(t *testing.T) {
	small, large := bytes.Repeat([]byte{1}, 300), bytes.Repeat([]byte{2}, 1<<20)
	m := NewMessage(1000*310 + 2<<20)
	for i := range 1000 {
		m.Bytes(1, small)
		if i%500 == 0 {
			m.Bytes(1, large)
		}
	}
	parts := m.Finish()
	defer parts.Free()
	inChunks := 0
	for _, p := range parts {
		if data := p.ReadOnlyData(); &data[0] != &large[0] {
			inChunks += len(data)
		}
	}
	if most := 1000*(300+3) + 2*5; inChunks > most {
		t.Errorf("%d bytes were copied, want at most %d", inChunks, most)
	}
	if most := 1000*303/chunkSize + 6; len(parts) > most {
		t.Errorf("%d parts, want at most %d", len(parts), most)
	}
}

// BenchmarkMessage puts together what a batch of 1,000 events is.
func BenchmarkMessage(b *testing.B) {
	value := []byte(strings.Repeat("x", 300))
	b.ReportAllocs()
	for b.Loop() {
		m := NewMessage(1000 * 303)
		for range 1000 {
			m.Bytes(1, value)
		}
		parts := m.Finish()
		parts.Free()
	}
}
