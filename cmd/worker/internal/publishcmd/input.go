package publishcmd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// maxLine is more than 10 MB in base64.
const maxLine = 32 << 20

var errLineTooLong = fmt.Errorf("expected lines of at most %d bytes", maxLine)

// inputLine is a line of the input, without its line break, in memory of its own.
type inputLine struct {
	number int
	text   []byte
	// err is io.EOF for the last line, errLineTooLong for one that was skipped, and else
	// the error that ends the reading.
	err error
	// more is set if another line is available at once, so that a request may wait for it.
	more bool
}

// readLines reads lines in a goroutine of its own, because a read from a pipe or a terminal
// does not end with ctx. Such a read goes on until the process ends.
func readLines(ctx context.Context, input io.Reader) <-chan inputLine {
	lines := make(chan inputLine)
	go func() {
		r := bufio.NewReaderSize(input, 1<<20)
		for n := 1; ; n++ {
			l := inputLine{number: n}
			if n == 1 {
				l.err = checkEncoding(r)
			}
			if l.err == nil {
				l.text, l.err = readLine(r)
			}
			l.more = r.Buffered() > 0
			select {
			case lines <- l:
			case <-ctx.Done():
				return
			}
			if errors.Is(l.err, io.EOF) || l.err != nil && !errors.Is(l.err, errLineTooLong) {
				return
			}
		}
	}()
	return lines
}

// readLine returns the next line. It skips one that is too long.
func readLine(r *bufio.Reader) ([]byte, error) {
	var (
		text    []byte
		tooLong bool
	)
	for {
		part, err := r.ReadSlice('\n')
		if tooLong = tooLong || len(text)+len(part) > maxLine; tooLong {
			text = nil
		} else {
			text = append(text, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case tooLong && (err == nil || errors.Is(err, io.EOF)):
			return nil, errors.Join(errLineTooLong, err)
		default:
			return bytes.TrimRight(text, "\r\n"), err
		}
	}
}

// byteOrderMark is put before UTF-8 by some editors.
const byteOrderMark = "\xef\xbb\xbf"

// checkEncoding skips a byte order mark, and refuses a file that is not UTF-8 with the name
// of its encoding.
func checkEncoding(r *bufio.Reader) error {
	begin, err := r.Peek(len(byteOrderMark))
	if err != nil {
		begin, _ = r.Peek(2) // a short file says so itself
	}
	is := func(prefix string) bool { return bytes.HasPrefix(begin, []byte(prefix)) }
	var what string
	switch {
	case is(byteOrderMark):
		_, err := r.Discard(len(byteOrderMark))
		return err
	case is("\xff\xfe"), is("\xfe\xff"), is("{\x00"), is("\x00{"):
		what = "UTF-16: convert it first, such as by iconv -f UTF-16 -t UTF-8"
	case is("\x1f\x8b"):
		what = "compressed by gzip: decompress it first, such as by gunzip"
	case is("PK\x03"):
		what = "a ZIP archive: unpack it first"
	case is("\x28\xb5\x2f"):
		what = "compressed by zstd: decompress it first"
	case is("BZh"):
		what = "compressed by bzip2: decompress it first"
	case is("\xfd7z"):
		what = "compressed by xz: decompress it first"
	default:
		return nil
	}
	return fmt.Errorf("expected one JSON object a line in UTF-8; the input is %s", what)
}
