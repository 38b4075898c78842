# SPDX-License-Identifier: Apache-2.0
# Bandwidth against bytes per rank, one line per transport.
ep_top = ep_head + 21 * |ep_series| + 16
ep_bottom = ep_top + 310
ep_h = ep_bottom + 66
eval ep_open
eval ep_place
set key at screen sx(4),sy(ep_head) top left
set logscale x 2
eval ep_byte_tics
set xlabel ep_x_label offset 0,0.7
set yrange [0:*]
set offsets graph 0.05, graph 0.05, graph 0.08, 0
file = ep_name.'.tsv'
plot for [i = 1:|ep_series|] file using (series(i, column('h_rank_bytes'))):(column('bw_bytes_per_s') / 1e9) with lines lt i notitle, \
     for [i = 1:|ep_series|] file using (series(i, column('h_rank_bytes'))):(column('bw_low_bytes_per_s') / 1e9):(0):(column('bw_high_bytes_per_s') / 1e9 - column('bw_low_bytes_per_s') / 1e9) with vectors heads size screen 0.009,90 lc i lw 1.4 dt 1 notitle, \
     for [i = 1:|ep_series|] file using (series(i, column('h_rank_bytes'))):(column('bw_bytes_per_s') / 1e9) with points lt i notitle, \
     for [i = 1:|ep_series|] NaN with linespoints lt i title ep_series[i]
