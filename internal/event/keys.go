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

func (p *pass) keyBytes(k key) []byte {
	if k.unescaped {
		return p.arena[k.start:k.end]
	}
	return p.data[k.start:k.end]
}

// push remembers the member's key and returns it.
func (p *pass) push() []byte {
	k := key{int32(p.key.start), int32(p.key.end), p.key.escaped}
	if k.unescaped {
		k.start = int32(len(p.arena))
		p.arena = appendUnescaped(p.arena, p.data[p.key.start:p.key.end])
		k.end = int32(len(p.arena))
	}
	p.keys = append(p.keys, k)
	return p.keyBytes(k)
}

// pop removes the keys of the innermost object, which begin at base, after it has looked
// for duplicates. name is that of the object, or "" within private metadata, where no key
// may be shown.
func (p *pass) pop(base int, name string) {
	keys := p.keys[base:]
	p.keys = p.keys[:base]
	if len(keys) < 2 || p.fault != "" || p.syntax != "" {
		return
	}
	k, ok := p.findDuplicate(keys)
	switch {
	case !ok:
	case name != "":
		p.invalid("%s: duplicate key; expected it once", path(name, p.keyBytes(k)))
	case k.unescaped:
		p.invalid("privateMetadata: duplicate key; expected each once")
	default:
		p.invalid("privateMetadata: duplicate key at byte offset %d (the first is 0); expected it once", k.start-1)
	}
}

// fewKeys is the number of keys up to which comparing them is cheaper than hashing.
const fewKeys = 10

func (p *pass) findDuplicate(keys []key) (key, bool) {
	if len(keys) > fewKeys {
		return p.findDuplicateHashed(keys)
	}
	for i, k := range keys[1:] {
		b := p.keyBytes(k)
		for _, earlier := range keys[:i+1] {
			if earlier.end-earlier.start == int32(len(b)) && bytes.Equal(p.keyBytes(earlier), b) {
				return k, true
			}
		}
	}
	return key{}, false
}

// keySeed keeps publishers from choosing keys whose hashes collide.
var keySeed = maphash.MakeSeed()

// findDuplicateHashed uses a hash table with open addressing that is at most half full.
func (p *pass) findDuplicateHashed(keys []key) (key, bool) {
	size := 1 << bits.Len(uint(2*len(keys)-1))
	if cap(p.table) < size {
		p.table = make([]int32, size)
	}
	table := p.table[:size]
	clear(table)
	for i, k := range keys {
		b := p.keyBytes(k)
		slot := int(maphash.Bytes(keySeed, b)) & (size - 1)
		for table[slot] != 0 {
			if bytes.Equal(p.keyBytes(keys[table[slot]-1]), b) {
				return k, true
			}
			slot = (slot + 1) & (size - 1)
		}
		table[slot] = int32(i) + 1
	}
	return key{}, false
}
