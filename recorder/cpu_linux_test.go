package recorder

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkRecordCPU is BenchmarkRecord in processor time of the caller's thread, so that
// other load of the machine does not count.
func BenchmarkRecordCPU(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx := tracedContext()
	r := newFast(b, Config{BufferEvents: 1 << 20, BufferBytes: 1 << 40})
	thread := func() int64 {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
			b.Fatal(err)
		}
		return t.Nano()
	}
	began := thread()
	b.ReportAllocs()
	for b.Loop() {
		if err := typical(ctx, r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(thread()-began)/float64(b.N), "cpu-ns/op")
}
