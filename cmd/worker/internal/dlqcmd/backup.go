package dlqcmd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// backup keeps the lines of messages that a command removes, as restore reads them. A
// line is on disk before its message is acknowledged. It is safe for concurrent use.
type backup struct {
	file *os.File

	mu    sync.Mutex
	lines map[string][]byte // of messages that may be removed, by their ids in the queue
	fault error             // the first failure: a line that was written in part must stay the last
}

// newBackup writes to a file that it does not close.
func newBackup(file *os.File) *backup { return &backup{file: file, lines: map[string][]byte{}} }

// openBackup opens a file to append to, which only the user may read. It cuts off a line
// that a crash has left incomplete: that line's message is still in the queue.
func openBackup(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	complete, err := completeLines(file)
	if err == nil {
		err = file.Truncate(complete)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the backup %s: %w", path, err), file.Close())
	}
	return file, nil
}

// completeLines returns how many bytes of a file end with its last line break.
func completeLines(file *os.File) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	const part = 1 << 20
	buffer := make([]byte, part)
	for end := info.Size(); end > 0; {
		begin := max(0, end-part)
		n, err := file.ReadAt(buffer[:end-begin], begin)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(buffer[:n], '\n'); i >= 0 {
			return begin + int64(i) + 1, nil
		}
		end = begin
	}
	return 0, nil
}

// keep makes the line of a message that may be removed, while its data is there.
func (b *backup) keep(s *dlq.Stored) error {
	line, err := dlq.Line(s)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines[s.ID] = append(line, '\n')
	return nil
}

// drop forgets a message that stays in the queue.
func (b *backup) drop(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.lines, id)
}

// write returns when the lines of the messages are on disk.
func (b *backup) write(ids []string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fault != nil {
		return b.fault
	}
	var text []byte
	for _, id := range ids {
		text = append(text, b.lines[id]...)
		delete(b.lines, id)
	}
	if _, err := b.file.Write(text); err != nil {
		b.fault = fmt.Errorf("write the backup: %w", err)
		return b.fault
	}
	if err := syncFile(b.file); err != nil {
		b.fault = fmt.Errorf("write the backup: %w", err)
	}
	return b.fault
}
