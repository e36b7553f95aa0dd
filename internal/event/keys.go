package event

import (
	"bytes"
	"hash/maphash"
	"math/bits"
)

// key is a key of an open object: a part of the data, or of the arena if it had escapes.
type key struct {
	start, end int32
	unescaped  bool
}

func (r *reader) keyBytes(k key) []byte {
	if k.unescaped {
		return r.arena[k.start:k.end]
	}
	return r.data[k.start:k.end]
}

// push remembers the member's key and returns it.
func (r *reader) push() []byte {
	k := key{int32(r.key.start), int32(r.key.end), r.key.escaped}
	if k.unescaped {
		k.start = int32(len(r.arena))
		r.arena = appendUnescaped(r.arena, r.data[r.key.start:r.key.end])
		k.end = int32(len(r.arena))
	}
	r.keys = append(r.keys, k)
	return r.keyBytes(k)
}

// pop removes the keys of the innermost object, which begin at base, after it has looked
// for duplicates. name is that of the object, or "" within private metadata, where no key
// may be shown.
func (r *reader) pop(base int, name string) {
	keys := r.keys[base:]
	r.keys = r.keys[:base]
	if len(keys) < 2 || r.fault != "" || r.syntax != "" {
		return
	}
	k, ok := r.findDuplicate(keys)
	switch {
	case !ok:
	case name != "":
		r.invalid("%s: duplicate key; expected it once", path(name, r.keyBytes(k)))
	case k.unescaped:
		r.invalid("privateMetadata: duplicate key; expected each once")
	default:
		r.invalid("privateMetadata: duplicate key at byte offset %d (the first is 0); expected it once", k.start-1)
	}
}

// fewKeys is the number of keys up to which comparing them is cheaper than hashing.
const fewKeys = 10

func (r *reader) findDuplicate(keys []key) (key, bool) {
	if len(keys) > fewKeys {
		return r.findDuplicateHashed(keys)
	}
	for i, k := range keys[1:] {
		b := r.keyBytes(k)
		for _, earlier := range keys[:i+1] {
			if earlier.end-earlier.start == int32(len(b)) && bytes.Equal(r.keyBytes(earlier), b) {
				return k, true
			}
		}
	}
	return key{}, false
}

// keySeed keeps publishers from choosing keys whose hashes collide.
var keySeed = maphash.MakeSeed()

// findDuplicateHashed uses a hash table with open addressing that is at most half full.
func (r *reader) findDuplicateHashed(keys []key) (key, bool) {
	size := 1 << bits.Len(uint(2*len(keys)-1))
	if cap(r.table) < size {
		r.table = make([]int32, size)
	}
	table := r.table[:size]
	clear(table)
	for i, k := range keys {
		b := r.keyBytes(k)
		slot := int(maphash.Bytes(keySeed, b)) & (size - 1)
		for table[slot] != 0 {
			if bytes.Equal(r.keyBytes(keys[table[slot]-1]), b) {
				return k, true
			}
			slot = (slot + 1) & (size - 1)
		}
		table[slot] = int32(i) + 1
	}
	return key{}, false
}
