// SPDX-License-Identifier: MIT

// Package pyapi is the border to Python: the only package that gopy sees.
//
// Rules, each because of what gopy generates:
//   - Flat functions over int and one int result. Structs, methods, strings and slices cost
//     microseconds or leak at this border; payloads lie in memory that both sides map.
//   - No error results: they would arrive as RuntimeError text. A negative result is a code of
//     codes.go, which Python turns into an exception.
//   - Handles are numbers of our own; an unknown one is codeUnknownHandle, never a crash.
//   - No call blocks: Python waits on eventfds and pidfds, where Ctrl-C reaches it.
//   - No logic: a function finds its object, calls one method and translates the result.
package pyapi

import _ "gopool/pyapi/monitor" // what it does it does when it is loaded
