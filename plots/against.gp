# SPDX-License-Identifier: Apache-2.0
# Exchange time of a layer against top-k: all-to-alls under skews, and collectives of all tokens.
ep_top = ep_head + 21 * |ep_series| + 40
ep_bottom = ep_top + 250
ep_h = ep_bottom + 44 + 170 + 60
eval ep_open
file = ep_name.'.tsv'
set multiplot
set logscale x 2
set xtics (); do for [i = 0:10] { set xtics add (sprintf('%d', 2**i) 2**i) }
set xrange [ep_x_low / 1.15:(ep_x_high > ep_ranks ? ep_x_high : ep_ranks) * 1.15]
set arrow 1 from ep_ranks, graph 0 to ep_ranks, graph 1 nohead dt (4,4) lw 1.2 lc rgb '#666666'
set label 400 'top-k = ranks' at ep_ranks, graph 0.97 right offset -0.6,0 font ep_font.',13' tc rgb '#666666'
eval ep_place
set label 200 ep_panel_1 at screen sx(10),sy(ep_top - 16) left font ep_font.',13'
set key on at screen sx(4),sy(ep_head) top left
set logscale y
set yrange [ep_y_low * 1e3 / 1.3:ep_y_high * 1e3 * 1.3]
set ytics (); do for [i = -3:5] { do for [j = 1:3] { set ytics add (sprintf('%g', (j == 3 ? 5 : j) * 10.0**i) (j == 3 ? 5 : j) * 10.0**i) } }
plot for [i = 1:|ep_series|] file using (series(i, column('top_k'))):(column('time_s') * 1e3) with lines lt i notitle, \
     for [i = 1:|ep_series|] file using (series(i, column('top_k'))):(column('low_s') * 1e3):(0):(column('high_s') * 1e3 - column('low_s') * 1e3) with vectors heads size screen 0.009,90 lc i lw 1.4 dt 1 notitle, \
     for [i = 1:|ep_series|] file using (series(i, column('top_k'))):(column('time_s') * 1e3) with points lt i notitle, \
     for [i = 1:|ep_series|] NaN with linespoints lt i title ep_series[i]
set key off
unset logscale y
set ytics auto
unset label 400
do for [j = 1:150] { unset label j }
ep_top = ep_bottom + 60
ep_bottom = ep_top + 150
ep_y_label = ep_congestion_label
eval ep_place
set label 200 ep_panel_2 at screen sx(10),sy(ep_top - 16) left font ep_font.',13'
set label 201 ep_x_label at screen sx(ep_w / 2),sy(ep_h - 12) center font ep_font.',14'
set yrange [0:*]
plot for [i = 1:|ep_series|] file using (series(i, column('top_k'))):(column('congestion')) with linespoints lt i notitle
unset multiplot
