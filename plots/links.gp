# SPDX-License-Identifier: Apache-2.0
# Links: bandwidth above, time of a message below, both against its size, a line per level.
ep_top = ep_head + 21 * |ep_series| + 16
ep_bottom = ep_top + 230
ep_h = ep_bottom + 20 + 230 + 66
eval ep_open
set key at screen sx(4),sy(ep_head) top left
set logscale x 2
set logscale y 10
set xrange [ep_x_min:ep_x_max]
file = ep_name.'.tsv'
set multiplot
ep_y_label = 'GB/s of a pair'
eval ep_place
set xtics ()
do for [j = 0:50:int(log(ep_x_step) / log(2) + 0.5)] { set xtics add ('' 2.0**j) }
set format y '%g'
set yrange [ep_bw_min:ep_bw_max]
plot for [i = 1:|ep_series|] file using (series(i, column('size_bytes'))):(column('bw_bytes_per_s') / 1e9) with linespoints lt i notitle, \
     for [i = 1:|ep_series|] NaN with linespoints lt i title ep_series[i]
unset for [j = 1:150] label j
ep_top = ep_bottom + 20
ep_bottom = ep_top + 230
ep_y_label = 'us per message'
eval ep_place
eval ep_byte_tics
set key off
set xlabel 'message size' offset 0,0.7
set yrange [ep_us_min:ep_us_max]
plot for [i = 1:|ep_series|] file using (series(i, column('size_bytes'))):(column('time_s') * 1e6) with linespoints lt i
unset multiplot
